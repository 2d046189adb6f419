"""The git repository of the workspace: scratch clones, tags, and what a change touched."""

from pathlib import Path

from process import CommandError, run

# The author of commits that exist in a scratch clone only.
_SCRATCH = ("-c", "user.name=scratch clone", "-c", "user.email=scratch@localhost")


def clone(root: Path, folder: Path) -> Path:
    """Clone the committed state of the repository at `root`, with its tags, into `folder`."""
    run(["git", "clone", "--quiet", "--no-hardlinks", root, folder])
    return folder


def tags(root: Path) -> set[str]:
    """The tags of the repository at `root`."""
    return set(run(["git", "tag", "--list"], cwd=root, echo=False).stdout.split())


def commit_and_tag(root: Path, message: str, tag: str) -> None:
    """Commit what changed in the scratch clone at `root`, if anything did, and tag it."""
    run(["git", "add", "--update"], cwd=root, echo=False)
    staged = run(["git", "diff", "--cached", "--quiet"], cwd=root, echo=False, accept=(0, 1))
    if staged.returncode:
        run(["git", *_SCRATCH, "commit", "--quiet", "--message", message], cwd=root)
    run(["git", *_SCRATCH, "tag", tag], cwd=root)


def worktree(root: Path, reference: str, folder: Path) -> Path:
    """Lay the tree of `reference` of the scratch clone at `root` into `folder`."""
    run(["git", "worktree", "add", "--quiet", "--detach", folder, reference], cwd=root)
    return folder


def changed_files(root: Path, base: str, head: str) -> list[str] | None:
    """Paths that differ between `head` and where it left `base`.

    None where `base` is not known here: a branch's first push, or a rewritten history.
    """
    try:
        names = run(["git", "diff", "--name-only", f"{base}...{head}"], cwd=root, echo=False)
    except CommandError:
        return None
    return names.stdout.splitlines()
