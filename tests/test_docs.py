"""The documentation: nothing missing, nothing astray, and tutorials that print what they show."""

import importlib
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import tutorial
from workspace import ROOT, read_workspace

MEMBERS = read_workspace()
DOCS = ROOT / "docs"
TUTORIALS = sorted(tutorial.FOLDER.glob("*.md"))


def pages(nav: list[dict]) -> list[str]:
    """The files that a navigation names, in order."""
    found = []
    for entry in nav:
        for value in entry.values():
            found += [value] if isinstance(value, str) else pages(value)
    return found


def test_navigation_has_every_page_once():
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    named = pages(project["nav"])
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_has_its_pages(name):
    for folder in ("packages", "reference"):
        assert (DOCS / folder / f"{name}.md").is_file()
    words = [re.search(r"^\*(.+?)\. ", page.read_text("utf-8"), re.M) for page in TUTORIALS]
    assert any(word is not None and name in word[1] for word in words), "no tutorial names it"


def test_agreement_of_outputs():
    assert tutorial.agree("loss 0.51, [1e-08]\n", "loss 0.53,  [2e-08]\n")
    assert not tutorial.agree("loss 0.51\n", "loss 0.71\n")
    assert not tutorial.agree("300 images\n", "250 images\n")
    assert not tutorial.agree("loss 0.51\n", "error 0.51\n")
    assert not tutorial.agree("loss 0.51\n", "")


def test_tutorial_runs_its_blocks_in_one_namespace(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# a\n\n```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\nend\n", "utf-8")
    steps = tutorial.run(page)
    assert [(step.line, step.shown, step.printed) for step in steps] == [
        (4, "", ""),
        (8, "", "1\n"),
    ]
    tutorial.rewrite(page, steps)
    again = tutorial.run(page)
    assert again[1].shown == again[1].printed == "1\n"
    assert page.read_text("utf-8").endswith("```\n\n```text\n1\n```\n\nend\n")


def test_what_a_page_writes_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nfrom pathlib import Path\nprint(Path('x').write_text('1'))\n```\n", "utf-8"
    )
    assert tutorial.run(page)[0].printed == "1\n"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", TUTORIALS, ids=[page.stem for page in TUTORIALS])
def test_tutorial_prints_what_it_shows(page):
    for step in tutorial.run(page):
        assert tutorial.agree(step.shown, step.printed), f"{page.name}:{step.line}: {step.printed}"


class Page(HTMLParser):
    """Anchors and links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if identity := given.get("id"):
            self.anchors.add(identity)
        if tag == "a" and (href := given.get("href")):
            self.links.append(href)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    if shutil.which("zensical") is None:
        pytest.skip("needs the dependency group docs")
    folder = tmp_path_factory.mktemp("docs")
    text = (ROOT / "zensical.toml").read_text("utf-8")
    built = folder / "site"
    config = ROOT / "zensical.toml"
    assert 'site_dir = "site"' in text
    subprocess.run(
        ["zensical", "build", "--strict", "--clean", "--config-file", str(config)],
        cwd=ROOT,
        check=True,
    )
    shutil.copytree(ROOT / "site", built)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
def test_reference_has_every_public_name(site, name):
    package = MEMBERS[name].import_name
    anchors = Page(site / "reference" / f"{name}.html").anchors
    module = importlib.import_module(package)
    # LinAlgError is torch's.
    foreign = {
        one
        for one in module.__all__
        if isinstance(getattr(module, one), type)
        and not getattr(module, one).__module__.startswith(package)
    }
    public = set(module.__all__) - foreign
    assert public or name == "chemflow"
    assert {f"{package}.{one}" for one in public} <= anchors


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site):
    parsed = {path: Page(path) for path in site.rglob("*.html")}
    astray = []
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = target in parsed and (
                not parts.fragment or unquote(parts.fragment) in parsed[target].anchors
            )
            if not found and not (target.is_file() and target.suffix != ".html"):
                astray.append(f"{path.relative_to(site)}: {link}")
    assert not astray
