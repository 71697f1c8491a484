"""What happens to an environment, and what the model makes of it: other installers, the user, damage, moves."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.model.model import Model
from tests.model.universe import HEADERS, SITE, fingerprint, walk


class Happenings(Model):
    """One environment that others can get at."""

    # What others do

    def run_python(self, *, write: bool) -> dict[str, str] | None:
        """Import all modules that are there. None if there is no Python to do it."""
        program = (
            "import importlib, json, sys\n"
            "found = {}\n"
            "for path in sys.argv[2:]:\n"
            "    name = path[len(sys.argv[1]) + 1:-3].replace('/', '.').removesuffix('.__init__')\n"
            "    try: found[path] = getattr(importlib.import_module(name), 'V', '')\n"
            "    except (Exception, SystemExit) as error: found[path] = repr(error)\n"
            "print(json.dumps(found))\n"
        )
        modules = sorted(path for path in walk(self.env) if path.startswith(SITE) and path.endswith(".py"))
        words = [f"{self.env}/bin/python", "-I", *([] if write else ["-B"]), "-c", program, SITE, *modules]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            return None
        if done.returncode:
            return None
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def write(self, path: str, content: bytes) -> None:
        """Write a file as another installer would: never into a link of the store's."""
        full = self.env / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.unlink(missing_ok=True)
        full.write_bytes(content)

    def use_space(self, path: str) -> None:
        """Put a file of the user's somewhere."""
        if not (self.env / path).parent.is_symlink() and not (self.env / path).exists():
            self.users[path] = f"the user's {path}".encode()
            self.write(path, self.users[path])

    def infos(self) -> dict[str, Path]:
        """Return the .dist-infos that are there, by name."""
        return {info.name.partition("-")[0]: info for info in sorted((self.env / SITE).glob("*.dist-info"))}

    def pip_install(self, text: str) -> None:
        """Install as pip does: the old one goes first. There is no pip without a Python."""
        if not (self.env / "pyvenv.cfg").exists() or not os.access(self.env / "bin" / "python", os.X_OK):
            return
        wheel = self.universe.wheel(text)
        self.pip_uninstall(wheel.name)
        contents = wheel.contents(self.env)
        contents[f"{wheel.info}/INSTALLER"] = b"pip\n"
        del contents[f"{wheel.info}/REQUESTED"]
        if any(path in self.users for path in contents):
            return
        rows = []
        for path, content in contents.items():
            self.write(path, content)
            if path.startswith("bin/"):
                (self.env / path).chmod(0o755)
            rows.append(",".join([os.path.relpath(path, SITE), *fingerprint(content)]))
            self.orphans.discard(path)
            self.harm.pop(path, None)
        record = f"{wheel.info}/RECORD"
        self.write(record, "\n".join([*rows, f"{os.path.relpath(record, SITE)},,\n"]).encode())
        self.note_alien(wheel)

    def pip_uninstall(self, name: str, *, half: int | None = None) -> None:
        """Uninstall as pip does; with `half`, be killed after so many files, before the .dist-info goes."""
        info = self.infos().get(name)
        if info is None or not (info / "RECORD").is_file():
            return
        with (info / "RECORD").open(newline="") as file:
            paths = sorted(os.path.normpath(f"{SITE}/{row[0]}") for row in csv.reader(file) if row)
        paths.sort(key=lambda path: ".dist-info/" in path)
        if half is not None:
            paths = [path for path in paths if ".dist-info/" not in path][: half + 1]
        for path in paths:
            full = self.env / path
            if path in self.universe.skeleton or not full.parent.is_dir():
                continue
            full.unlink(missing_ok=True)
            for compiled in (full.parent / "__pycache__").glob(f"{full.stem}.*.pyc"):
                compiled.unlink()
            self._prune(full.parent)
            self.harm[path] = "seen"
        if half is None:
            shutil.rmtree(info, ignore_errors=True)
            if name in self.unrecorded:
                self.make_orphans(name)
            self.forget(name)

    def _prune(self, directory: Path) -> None:
        keep = {self.env / SITE, self.env / "bin", self.env / "lib", self.env / "include", self.env / HEADERS, self.env}
        while directory not in keep:
            with contextlib.suppress(OSError):
                (directory / "__pycache__").rmdir()
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent

    # Damage

    def damage(self, number: int, how: str) -> None:
        """Damage a file of some distribution."""
        if paths := self.owned():
            self.damage_file(paths[number % len(paths)], how)

    def damage_file(self, path: str, how: str) -> None:
        """Damage a file: `gone`, `empty`, or `flip` for another content of the same size."""
        full = self.env / path
        content = full.read_bytes()
        if how == "flip" and not content:
            return
        if how == "in place":
            # Through the hard link into the store, whose next user has to find out.
            full.write_bytes(content + b"# more\n")
        elif how in ("gone", "empty", "flip"):
            full.unlink()
            if how == "empty":
                full.write_bytes(b"")
            elif how == "flip":
                full.write_bytes(flipped(content))
        now = full.read_bytes() if full.exists() else None
        if now is not None and self.possible is not None:
            self.orphans.add(path)  # a recovery leaves what is not what was decided on, and its owner may be gone
        if now != content:
            self.harm[path] = "blind" if now is not None and len(now) == len(content) else "seen"

    def damage_record(self, name: str, how: str) -> None:
        """Damage a RECORD: what it does not list any more is nobody's."""
        info = self.infos().get(name)
        if info is None or name in self.aliens or not (info / "RECORD").is_file():
            return
        record = info / "RECORD"
        content = record.read_bytes()
        record.unlink()
        self.unrecorded.add(name)
        if how == "empty":
            record.write_bytes(b"")
        elif how == "cut":
            record.write_bytes(content[: len(content) // 2])
        elif how == "flip":
            record.write_bytes(flipped(content))
        self.harm[f"{SITE}/{info.name}/RECORD"] = "seen"

    def lose_info(self, name: str) -> None:
        """Delete a .dist-info: its files are nobody's."""
        info = self.infos().get(name)
        if info is not None:
            shutil.rmtree(info)
            self.make_orphans(name)

    def lose_half_a_tree(self, directory: str, number: int) -> None:
        """Delete every second file below a directory, as an interrupted `rm -r` may."""
        paths = [path for path in self.owned() if path.startswith(directory)]
        for path in paths[number % 2 :: 2]:
            (self.env / path).unlink()
            self.harm[path] = "seen"
            if path.endswith(".dist-info/RECORD"):
                self.damage_record(path.split("/")[-2].partition("-")[0], "gone")

    def lose_skeleton(self, path: str) -> None:
        """Lose a part of the skeleton. The environment is remade, as long as anything says that it is one.

        It takes pyvenv.cfg, or a `bin/python` that leads out of it, or our word for it; and that is not given for an
        environment in which nothing was ever installed.
        """
        other = "pyvenv.cfg" if path.startswith("bin") else "bin/python"
        if not (self.env / ".envsync").exists() or not os.path.lexists(self.env / other):
            return
        for each in self.env.glob(path):
            each.unlink()
        self.fragile = True
        self.lose_track()

    def damage_state(self, name: str, how: str, number: int) -> None:
        """Damage one of our own files."""
        path = self.env / ".envsync" / name
        if not path.is_file():
            return
        content = path.read_bytes()
        if how == "cut":
            path.write_bytes(content[: number % max(1, len(content))])
        elif how == "flip" and content:
            path.write_bytes(flipped(content, number))
        elif how == "gone":
            path.unlink()
        if name == "journal":
            self.lose_journal()
        self.forgotten |= name == "installed.json"

    def lose_state(self) -> None:
        """Remove all that we know of the environment."""
        if not (self.env / "pyvenv.cfg").exists() or not (self.env / "bin" / "python").exists():
            return
        if (self.env / ".envsync" / "journal").exists():
            self.lose_journal()
        shutil.rmtree(self.env / ".envsync", ignore_errors=True)
        self.forgotten = True

    def move(self, to: Path) -> None:
        self.env.rename(to)
        self.env = to
        self.fragile = True
        self.lose_track()


def flipped(content: bytes, number: int = -1) -> bytes:
    """Return the content with one bit flipped, such that text stays text."""
    if not content:
        return b"\1"
    place = (len(content) // 2 if number < 0 else number) % len(content)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
