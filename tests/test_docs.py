"""What is not run rots: the README's commands and code run, its picture and the pages are
current.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.S)


def commands(text: str) -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in blocks("console", text)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def files(text: str) -> list[tuple[str, str]]:
    """Those that a page shows under a name."""
    return re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", text, re.S)


# the one constant of the policy's modules that decides nothing: how much a queue drops at once
ONLY_SPEED = ("tenfold.serving.queue", "_COMPACT")
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if commands(p.read_text("utf-8"))]


def run(command: str, folder: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "tenfold"
    code = "from tenfold.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("command", commands(README))
def test_readme_commands(command: str, tmp_path: Path) -> None:
    shown = files(README)
    assert len(shown) == len(blocks("csv"))
    for name, content in shown:
        (tmp_path / name).write_text(content)
    run(command, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_of_the_pages(page: Path, tmp_path: Path) -> None:
    """One after the other in one folder, with the files that the page shows under a name."""
    text = page.read_text("utf-8")
    for name, content in files(text):
        (tmp_path / name).write_text(content)
    for command in commands(text):
        run(command, tmp_path)


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert "Estimate" in capsys.readouterr().out


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_picture_is_current() -> None:
    """Run `python docs/picture.py docs/profile.svg` when this fails."""
    picture = runpy.run_path(str(ROOT / "docs" / "picture.py"))["picture"]
    assert (ROOT / "docs" / "profile.svg").read_text(encoding="utf-8") == picture()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_house_is_as_the_page_says() -> None:
    """Run `python docs/house.py docs/house.md` when this fails."""
    page = runpy.run_path(str(ROOT / "docs" / "house.py"))["page"]
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    assert text == page()
    named = re.findall(r"\| `((?:[a-z]+\.)+)(\w+)` \|", text)
    assert len(named) >= 5
    for module, name in named:
        assert hasattr(importlib.import_module(f"tenfold.{module.rstrip('.')}"), name)


def test_the_page_of_the_policys_constants_has_each_as_it_is() -> None:
    """Run `python docs/policy.py docs/policy.md` when this fails (some minutes)."""
    page = runpy.run_path(str(ROOT / "docs" / "policy.py"))
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    listed = {(c.home.__name__, c.name) for c in page["CONSTANTS"]}
    for c in page["CONSTANTS"]:
        value = getattr(c.home, c.name)
        assert f"| `{c.name.strip('_')}` {c.meaning} | {value:g} |" in text
    for module in page["MODULES"]:
        tree = ast.parse(inspect.getsource(module))
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                (name,) = (t.id for t in node.targets if isinstance(t, ast.Name))
                assert (module.__name__, name) in listed | {ONLY_SPEED}


def test_the_page_of_steps_is_current() -> None:
    """Run `python docs/steps.py docs/steps.md` when this fails."""
    page = runpy.run_path(str(ROOT / "docs" / "steps.py"))["page"]
    assert (ROOT / "docs" / "steps.md").read_text(encoding="utf-8") == page()
