"""What does RankFeat cost beside a plain forward pass of SqueezeNet and EfficientNet?

One thread, float32, one layer: `score` (the edited branch alone), the detector itself (with the
class, of the unedited logits) and, of one image, `predict_one`. Ratios of the medians of calls in
turns. Weights are random, which changes no shape; the number of steps depends on s2/s1, printed.
"""

from functools import partial

import torch
from eigenworks.data.efficientnet_lite import EfficientNetLite0Network
from eigenworks.timing import arguments, in_turns, medians, write_rows
from rankfeat import RankFeat, singular_values
from torch import nn
from torchvision.models import squeezenet1_0

QUESTION = "What does RankFeat on one layer cost beside a plain forward pass?"


def models() -> dict[str, tuple[nn.Module, str, int]]:
    """Network, layer, and side of the images."""
    torch.manual_seed(0)
    return {
        "SqueezeNet 1.0, features": (squeezenet1_0(weights=None).eval(), "features", 224),
        "SqueezeNet 1.0, features, 480": (squeezenet1_0(weights=None).eval(), "features", 480),
        "EfficientNet-Lite0, last map": (EfficientNetLite0Network().eval(), "act1", 224),
        "EfficientNet-Lite0, blocks.10": (EfficientNetLite0Network().eval(), "blocks.10", 224),
    }


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each network and batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (net, layer, side) in models().items():
        detector = RankFeat(net, [layer])
        for batch in (1,) if options.quick else (1, 4):
            x = torch.randn(batch, 3, side, side)
            detector.calibrate([x])
            values = singular_values(net, layer, [x])
            calls = {
                "plain": partial(net, x),
                "score": partial(detector.score, x),
                "with class": partial(detector, x),
            }
            if batch == 1:
                calls["predict_one"] = partial(detector.predict_one, x)
            seconds, least = (0.0, 1) if options.quick else (options.seconds, 7)
            with torch.no_grad():
                taken = medians(in_turns(calls, seconds, least=least))
            plain = taken.pop("plain")
            for key, one in taken.items():
                ratio = one / plain
                print(f"{name:32s} batch {batch}  plain {1e3 * plain:7.1f} ms  {key:12s}"
                      f" {ratio:5.2f}x  s2/s1 {float((values[:, 1] / values[:, 0]).mean()):.2f}",
                      flush=True)  # fmt: skip
                rows.append({"label": f"{name}, batch {batch}", "metric": f"{key} over plain",
                             "value": ratio, "unit": "x", "better": "lower",
                             "milliseconds": 1e3 * plain})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
