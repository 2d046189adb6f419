"""Pictures, the page of directions in a browser, and the command."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from householder_gan import (
    DCGAN,
    PixelDistance,
    StyleGAN2,
    browse,
    directions,
    displacement,
    householderize,
    load_directions,
    load_generator,
    save_generator,
    save_gif,
    save_grid,
    sefa,
)
from householder_gan.cli import main
from householder_gan.command import app
from householder_gan.pictures import difference_map, from_picture, grid, heat, to_pixels
from householder_gan.sources import read_generator
from PIL import Image
from typer.testing import CliRunner

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dcgan():
    torch.manual_seed(0)
    return DCGAN(6, (8, 4)).eval()


def test_pixels_and_grids():
    image = torch.tensor([-1.0, 0.0, 1.0, 5.0]).view(1, 2, 2)
    assert to_pixels(image)[..., 0].flatten().tolist() == [0, 128, 255, 255]
    assert to_pixels(image).shape == (2, 2, 3)
    sheet = grid(torch.full((2, 3, 3, 4, 5), -1.0), gap=1)
    assert sheet.shape == (2 * 4 + 1, 3 * 5 + 2, 3)
    assert sheet[4].min() == 255
    assert sheet[:, 5].min() == 255
    assert int((sheet == 0).sum()) == 6 * 4 * 5 * 3


def test_difference_maps():
    strip = torch.zeros(1, 3, 3, 2, 2)
    strip[0, :, :, 0, 1] = torch.tensor([-1.0, 0.0, 1.0])[:, None]
    values = difference_map(strip)
    assert values[0, 1] == pytest.approx((2 / 3) ** 0.5)
    assert int((values > 0).sum()) == 1
    coloured = heat(values, float(values.max()))
    assert coloured[0, 1].tolist() == [255, 255, 255]
    assert coloured[0, 0].tolist() == [0, 0, 0]


def test_files_can_be_read_again(tmp_path):
    frames = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 3, 8, 8)
    save_gif(tmp_path / "a.gif", frames, milliseconds=50)
    with Image.open(tmp_path / "a.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 6  # there and back
        gif.seek(3)
        assert max(gif.convert("L").tobytes()) > 250
    save_grid(tmp_path / "a.png", frames[None])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (4 * 10 - 2, 8)
    back = from_picture(tmp_path / "a.png", 8)
    assert back.shape == (3, 8, 8)
    assert -1 <= float(back.min()) < float(back.max()) <= 1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    torch.manual_seed(0)
    G = StyleGAN2(16, 8, 2, {4: 8, 8: 8, 16: 8}).eval()
    householderize(G, rank=3)
    found = directions(G).labelled({"convs.2.conv.modulation": {"1": "</script><b>hat & 'x'"}})
    responses = displacement(G, found, PixelDistance(), step=3.0, samples=4)
    path = tmp_path_factory.mktemp("page") / "directions.html"
    browse(G, found, random(2, 8), responses, path, steps=[-3.0, 0.0, 3.0], title="A & B")
    return path, responses


def test_page_is_one_file(page):
    path, responses = page
    text = path.read_text("utf-8")
    assert "<title>A &amp; B</title>" in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert "http" not in text
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    rows = json.loads(data[1])
    assert [row["number"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert rows[4]["label"] == "</script><b>hat & 'x'"
    assert rows[0]["displacement"] == pytest.approx(float(responses[0].values[0]))
    assert all(row["strip"].startswith("data:image/webp;base64,") for row in rows)
    assert "squared pixels after a step of 3" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_page_in_a_browser(page, tmp_path):
    path, responses = page
    # The page is driven by a script of the test, which sorts, filters and labels.
    drive = """
    <script>
    const rowTexts = () => [...document.querySelectorAll(".row h2")].map((e) => e.textContent);
    const report = { first: rowTexts(), images: [...document.images].length };
    const choose = (id, value) => {
      const box = document.getElementById(id);
      box.value = value;
      box.dispatchEvent(new Event("change"));
    };
    choose("sort", "displacement");
    report.sorted = rowTexts();
    choose("sort", "label");
    report.labelled = rowTexts()[0];
    choose("layer", "convs.2.conv.modulation");
    report.filtered = rowTexts().length;
    report.count = document.getElementById("count").textContent;
    const input = document.querySelector(".row input");
    report.label = input.value;
    input.value = "hat";
    input.dispatchEvent(new Event("input"));
    let saved;
    URL.createObjectURL = (blob) => { saved = blob; return "#"; };
    document.getElementById("save").click();
    Promise.all([saved.text(), ...[...document.images].map((i) => i.decode())]).then(([text]) => {
      report.saved = JSON.parse(text);
      report.sizes = [...document.images].map((i) => i.naturalWidth);
      const out = document.createElement("pre");
      out.id = "report";
      out.textContent = JSON.stringify(report);
      document.body.append(out);
    });
    </script>"""
    driven = tmp_path / "driven.html"
    driven.write_text(path.read_text("utf-8").replace("</body>", drive + "</body>"), "utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", driven.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-500:] + done.stderr[-500:]
    import html

    report = json.loads(html.unescape(found[1]))
    names = ["convs.0.conv.modulation", "convs.2.conv.modulation"]
    order = [f"{name} · {j}" for name in names for j in range(3)]
    assert report["first"] == order
    assert report["images"] == 12
    values = torch.cat([r.values for r in responses])
    assert report["sorted"] == [order[i] for i in values.argsort(descending=True).tolist()]
    assert report["labelled"] == order[4]
    assert (report["filtered"], report["count"]) == (3, "3 directions")
    assert report["label"] == "</script><b>hat & 'x'"
    assert report["saved"] == {"convs.2.conv.modulation": {"1": "hat"}}
    # Strips of 2 codes by 3 steps, and maps of one image.
    assert sorted(set(report["sizes"])) == [16, 3 * 18 - 2]


def test_command(tmp_path):
    torch.save({"netG_state_dict": dcgan().state_dict()}, tmp_path / "G.tar")

    def run(*words):
        found = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.stdout

    assert "rank" in run("convert", tmp_path / "G.tar", "--out", "x", "--rank", 3, "--dry-run")
    P = tmp_path / "P.safetensors"
    assert "energy kept" in run("convert", tmp_path / "G.tar", "--out", P, "--rank", "energy:0.5")
    rank = len(directions(load_generator(P)).layers[0])
    text = run("directions", P, "--out", tmp_path / "d.safetensors", "--ranked", "--samples", 8)
    assert f"{rank} directions" in text
    assert len(load_directions(tmp_path / "d")) == rank
    (tmp_path / "labels.json").write_text('{"main.0": {"0": "hat"}}')
    save_grid(tmp_path / "one.png", load_generator(P)(random(1, 6)).detach()[None])
    text = run("browse", P, "--out", tmp_path / "page", "--directions", tmp_path / "d",
               "--labels", tmp_path / "labels.json", "--image", tmp_path / "one.png",
               "--steps", 20, "--frames", 3)  # fmt: skip
    assert "projected: " in text
    names = sorted(p.name for p in (tmp_path / "page").iterdir())
    gifs = [f"layer0-{j}.gif" for j in range(rank)]
    assert names == sorted(["directions.html", "layer0.png", *gifs])
    assert '"label": "hat"' in (tmp_path / "page" / "directions.html").read_text("utf-8")
    text = run("directions", tmp_path / "G.tar", "--out", tmp_path / "g", "--samples", 4,
               "--source", "ganspace", "--count", 3)  # fmt: skip
    assert "main.0: 3 directions" in text
    text = run("metrics", tmp_path / "G.tar", "--samples", 16, "--count", 2)
    assert "PPL in w" in text
    assert "PIPL, ε=1" in text
    run("fold", P, "--out", tmp_path / "F.safetensors")
    z = random(2, 6)
    torch.testing.assert_close(
        load_generator(tmp_path / "F.safetensors")(z), load_generator(P)(z), rtol=0, atol=0
    )
    trained = tmp_path / "T.safetensors"
    text = run("finetune", P, "--teacher", tmp_path / "G.tar", "--out", trained, "--steps", 2,
               "--batch", 2, "--width", 16, "--report", 1)  # fmt: skip
    assert "generator" in text
    assert len(directions(load_generator(trained)).layers[0]) == rank


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fold", "a.pt", "--out", "x"], "expected a generator of DCGAN, StyleGAN2 or StyleGAN3"),
        (["fold", "none.pt", "--out", "x"], "none.pt"),
        (["fold", "text.pt", "--out", "x"], "text.pt: not a checkpoint of tensors"),
        (["fold", "G.tar", "--out", "x"], "G.tar: no whole DCGAN"),
        (["convert", "a.pt"], "--out must name the file to write"),
        (["finetune", "a.pt", "--out", "x", "--images", "a", "--teacher", "b"], "not both"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, capsys, monkeypatch, words, told):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    torch.save({"main.0.weight": torch.zeros(1)}, tmp_path / "G.tar")
    (tmp_path / "text.pt").write_text("some words")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["householder-gan", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_command_without_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "householder_gan.command")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "pip install 'householder-gan[cli]'" in str(stopped.value.code)


def test_files_of_each_kind(tmp_path):
    torch.manual_seed(0)
    G = StyleGAN2(16, 8, 2, {4: 8, 8: 8, 16: 8}).eval()
    torch.save({"g_ema": G.state_dict()}, tmp_path / "G.pt")
    save_generator(tmp_path / "G.safetensors", G)
    z = random(2, 8)
    for name in ("G.pt", "G.safetensors"):
        torch.testing.assert_close(read_generator(tmp_path / name)(z), G(z), rtol=0, atol=0)
    assert len(sefa(G, count=4)) == 8
