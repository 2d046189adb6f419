"""The long commands on small inputs, to be killed or to be left without room.

A server imports a command once and forks a process for each run, so that a moment at random falls
into the work and not into imports. A run is killed by the clock, or just after some change of the
file system, where a file may be cut.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open


@dataclass(frozen=True)
class Command:
    """`module.main` with the arguments that `prepare` gives after it made its inputs in a folder.

    Results go to the folder `out` within. `imports` are what the command would import late.
    """

    module: str
    prepare: Callable[[], list[str]]
    imports: tuple[str, ...] = ()


def compress() -> list[str]:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", *(f"w{i}" for i in range(30))]
    network: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        )
    )  # fmt: skip
    for parameter in network.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained("model")
    level = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=level).save_pretrained("model")
    picks = torch.randint(1, 31, (600,)).tolist()
    Path("text.txt").write_text(" ".join(words[i] for i in picks))
    options = "--ratio 0.6 --text text.txt --samples 4 --length 32"
    return ["compress", "model", "out", *options.split()]


def train() -> list[str]:
    images = torch.randint(0, 256, (12, 8, 8), dtype=torch.uint8)
    np.savez("images.npz", images=images.numpy())
    options = "--iterations 30 --batch 4 --dim 4 --steps 2 --save-every 4"
    return ["train", "images.npz", "--out", "out", *options.split()]


def finetune() -> list[str]:
    from householder_gan import StyleGAN2, householderize
    from householder_gan.checkpoints import save_generator

    generator = StyleGAN2(16, 8, 2, {4: 8, 8: 8, 16: 6})
    householderize(generator, rank=3)
    save_generator("G.safetensors", generator)
    options = "--steps 12 --batch 2 --width 16 --report 2"
    return ["finetune", "G.safetensors", "--out", "out/T.safetensors", *options.split()]


def optimize() -> list[str]:
    from chemflow.vae import Config, MoleculeVAE, save_model
    from chemflow.vocabulary import Vocabulary

    tokens = Vocabulary.of(["[C]", "[=C]", "[N]", "[O]", "[Branch1]", "[Ring1]", "[F]"])
    save_model(Path("model"), MoleculeVAE(Config(12, 8, 6, (32, 24, 16), 0, 10), tokens).eval())
    options = (
        "--property logp --also sa --navigator random --count 96 --batch 8 --steps 12 "
        "--workers 1 --trajectories"
    )
    return ["optimize", "model", "--out", "out", *options.split()]


EXPERIMENT = """
import time
from eigenworks import Claim, Experiment, Row, Size

def run(trial):
    trial.folder.mkdir(parents=True, exist_ok=True)
    for i in range(8):
        kept = trial.folder / f"{i}.txt"
        if not kept.exists():
            time.sleep(0.02)
            part = kept.with_name("part")
            part.write_text(str(100 * trial.seed + i))
            part.replace(kept)
        yield Row(f"row {i}", "accuracy", int(kept.read_text()))

walk = Experiment(
    "demo/walk", "Walk", Claim("It walks.", source="a test"), run,
    Size(0.1, (0, 1, 2, 3, 4)), Size(0.1),
)
"""


def run() -> list[str]:
    site = Path("site", "demo-1.0.dist-info")
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.4\nName: demo\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[eigenworks.experiments]\nwalk = demo_walk:walk\n")
    Path("site", "demo_walk.py").write_text(EXPERIMENT)
    sys.path.insert(0, str(Path("site").resolve()))
    return ["run", "demo", "--out", "out"]


TRAINING = ("torch._dynamo", "torch._inductor.config")
COMMANDS = {
    "asvd compress": Command("asvd.cli", compress, ("asvd.draw", "matplotlib.pyplot")),
    "flowfactor train": Command("flowfactor.cli", train, (*TRAINING, "flowfactor.cli.app")),
    "householder-gan finetune": Command(
        "householder_gan.cli", finetune, (*TRAINING, "householder_gan.command")
    ),
    "chemflow optimize": Command(
        "chemflow.cli", optimize, ("chemflow.cli.app", "chemflow.report", "matplotlib.pyplot")
    ),
    "eigenworks run": Command("eigenworks.cli", run, ("eigenworks.session", "eigenworks.report")),
}


@dataclass(frozen=True)
class Ended:
    """A run: its exit status (minus the signal that killed it), and what it took."""

    status: int
    seconds: float
    changes: int
    printed: str


class Server:
    """Starts runs of one command, each in a process that has it imported already."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "tmp").mkdir()
        # Inductor, which optimisers import, makes a folder for what it compiles.
        places = {"TMPDIR": folder / "tmp", "TORCHINDUCTOR_CACHE_DIR": folder / "inductor"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, name],
            cwd=folder, env=os.environ | {key: str(place) for key, place in places.items()},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, seconds: float = 0.0, change: int = 0, after: float = 0.0, limit: int = 0
    ) -> Ended:
        """To the end, or killed after so many seconds, or so long after a change of files.

        No file may have more than `limit` bytes, if that is not 0.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"seconds": seconds, "change": change, "after": after, "limit": limit}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Ended(**told, printed=(self.folder / "printed").read_text("utf-8"))

    def clear(self) -> None:
        """Makes the folder of results empty."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def snapshot(self, unfinished: bool = False) -> dict[str, Any]:
        """What the results hold; of an unfinished run without what is temporary.

        Any file that is not whole raises.
        """
        held = {}
        for path in sorted(self.out.rglob("*")):
            name = path.relative_to(self.out)
            if path.is_file() and not (unfinished and is_temporary(name)):
                held[str(name)] = content(path)
        return held

    def is_tidy(self) -> bool:
        """Whether nothing temporary is left, in the results or where temporary files go."""
        left = (path.relative_to(self.out) for path in self.out.rglob("*"))
        return not any(map(is_temporary, left)) and not any((self.folder / "tmp").iterdir())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Generator[Callable[[str], Server]]:
    """Starts the server of a command."""
    servers = []

    def started(name: str) -> Server:
        servers.append(Server(name, tmp_path))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


COSTS = {"seconds", "finished", "machine", "machines", "evaluated", "sha256"}
"""Names in results of what a run took, not of what it found, and of the digest of both."""


def is_temporary(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix in (".part", ".partial")


def content(path: Path) -> Any:
    match path.suffix:
        case ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return plain(tensors), file.metadata()
        case ".pt" | ".state":
            return plain(torch.load(path, weights_only=True))
        case ".npz":
            with np.load(path) as file:
                return plain(dict(file))
        case ".json":
            return plain(json.loads(path.read_text("utf-8")))
        case ".jsonl":
            return [plain(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        case ".html":
            # Pages show how long things took.
            assert path.read_text("utf-8").rstrip().endswith("</html>"), path
            return None
        case ".png":
            data = path.read_bytes()
            assert data.endswith(b"IEND\xaeB`\x82"), path
            return data
    return path.read_bytes()


def plain(value: Any) -> Any:
    """Values that compare by `==`, without costs."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in COSTS}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    return value


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link")


def serve(name: str) -> None:
    """Reads on each line how a run is to be killed, and says how it ended."""
    command = COMMANDS[name]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    arguments = command.prepare()
    module = import_module(command.module)
    for late in command.imports:
        import_module(late)
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            one_run(module.main, [name.split()[0], *arguments], asked)
        if asked["seconds"]:
            time.sleep(asked["seconds"])
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        changes = Path("changes")
        told = {
            "status": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - start,
            "changes": int(changes.read_text()) if changes.exists() else 0,
        }
        print(json.dumps(told), flush=True)


def one_run(main: Callable[[], Any], arguments: list[str], asked: dict[str, Any]) -> None:
    """In the forked process: the command, which does not come back."""
    if asked["limit"]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"], asked["limit"]))
    place = os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(place, 1)
    os.dup2(place, 2)
    seen = 0

    def watch(event: str, given: tuple) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(given[2], int) and given[2] & WRITES):
                return
        elif event not in CHANGES:
            return
        # shutil.rmtree names files relative to an open folder.
        path = str(given[0]) if not isinstance(given[0], bytes) else os.fsdecode(given[0])
        if "out" not in Path(path).parts and event not in ("os.remove", "os.rmdir"):
            return
        seen += 1
        if seen == asked["change"]:
            # The kernel ends the process on this signal, and no code of it runs any more.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(asked["after"], 1e-6))

    sys.argv = arguments
    sys.addaudithook(watch)
    status: Any = 1
    try:
        status = main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if not asked["seconds"] and not asked["change"]:
        Path("changes").write_text(str(seen))
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
