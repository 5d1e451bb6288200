"""hob cp against a stand-in for hobd."""

import json
import os

import pytest

from clitest import BOX, fake, hob  # noqa: F401


# ---- files ----
@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "sub" / "odd #?%&+ name").write_text("b")
    (folder / "sub" / "deep" / "big").write_bytes(os.urandom(2 << 20))
    (folder / "sub" / "deep" / "nothing").write_text("")
    (folder / "sub" / "link").symlink_to("../run")
    (folder / "sub").chmod(0o700)
    return folder


def same_trees(one, other):
    def listing(root):
        found = {}
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, root)
                if os.path.islink(path):
                    found[key] = os.readlink(path)
                else:
                    mode = os.stat(path).st_mode
                    found[key] = (mode, None if os.path.isdir(path) else open(path, "rb").read())
        return found
    return listing(one) == listing(other)


def test_cp_folder_in_and_out(fake, tree, tmp_path):
    assert hob(fake, "cp", str(tree), f"{BOX}:").err == ""
    assert same_trees(tree, fake.path(BOX, "workspace/tree"))
    assert hob(fake, "cp", "0123:tree", str(tmp_path / "back")).err == ""
    assert same_trees(tree, tmp_path / "back")
    (tmp_path / "into").mkdir()
    assert hob(fake, "cp", "0123:/workspace/tree", str(tmp_path / "into")).code == 0
    assert same_trees(tree, tmp_path / "into" / "tree")
    assert hob(fake, "cp", f"{tree}/.", "0123:/content").code == 0
    assert same_trees(tree, fake.path(BOX, "content"))
    again = hob(fake, "cp", "--json", "0123:tree/.", str(tmp_path / "back"))
    assert again.code == 0 and json.loads(again.out)["files"] == 5
    assert same_trees(tree, tmp_path / "back")


def test_cp_leaves_the_modes_of_folders_that_were_there(fake, tree, tmp_path):
    tree.chmod(0o700)
    os.makedirs(fake.path(BOX, "there/sub"))
    os.chmod(fake.path(BOX, "there"), 0o711)
    os.chmod(fake.path(BOX, "there/sub"), 0o1777)
    assert hob(fake, "cp", f"{tree}/.", f"{BOX}:/there").err == ""
    assert os.stat(fake.path(BOX, "there")).st_mode & 0o7777 == 0o711
    assert os.stat(fake.path(BOX, "there/sub")).st_mode & 0o7777 == 0o1777
    assert os.stat(fake.path(BOX, "there/empty")).st_mode & 0o7777 == 0o755
    assert hob(fake, "cp", f"{tree}/.", f"{BOX}:/new").err == ""
    assert os.stat(fake.path(BOX, "new")).st_mode & 0o7777 == 0o700
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    home.chmod(0o700)
    assert hob(fake, "cp", f"{BOX}:/there/.", str(home)).err == ""
    assert os.stat(home).st_mode & 0o777 == 0o700 and os.stat(home / "sub").st_mode & 0o777 == 0o755
    assert (home / "run").read_text() == "#!/bin/sh\n"


def test_cp_files_and_streams(fake, tmp_path):
    source = tmp_path / "a b"
    source.write_text("text")
    source.chmod(0o640)
    assert hob(fake, "cp", str(source), f"{BOX}:/new/name").code == 0
    assert os.stat(fake.path(BOX, "new/name")).st_mode & 0o7777 == 0o640
    assert hob(fake, "cp", f"{BOX}:/new/name", "-").out == "text"
    assert hob(fake, "cp", "-", f"{BOX}:/new/streamed", stdin="streamed").code == 0
    assert open(fake.path(BOX, "new/streamed")).read() == "streamed"
    os.chmod(fake.path(BOX, "new/name"), 0o4755)
    assert hob(fake, "cp", f"{BOX}:/new/name", str(tmp_path)).code == 0
    assert os.stat(tmp_path / "name").st_mode & 0o7777 == 0o755
    assert hob(fake, "cp", f"{BOX}:/new", "-").code == 2
    assert hob(fake, "cp", f"{BOX}:/missing", str(tmp_path)).code == 3
    assert hob(fake, "cp", f"{BOX}:/new/name", str(tmp_path / "no" / "folder")).code == 3
    assert hob(fake, "cp", str(tmp_path / "missing"), f"{BOX}:/x").code == 3
    assert [name for name in os.listdir(tmp_path) if name.startswith(".hob")] == []


def test_cp_out_never_leaves_its_target(fake, tmp_path):
    """A sandbox that lies about names, or that puts a link where a folder was."""
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("../escaped", "..", "/etc/x", "a/b", ""):
        fake.listings["evil"] = [{"name": name, "type": "file", "mode": "0644"}]
        done = hob(fake, "cp", f"{BOX}:/evil", str(tmp_path / "out"))
        assert done.code == 12, name
    fake.listings["evil"] = [{"name": "x", "type": "symlink", "mode": "0777", "target": str(precious)},
                             {"name": "x", "type": "dir", "mode": "0755"}]
    fake.listings["evil/x"] = [{"name": "y", "type": "symlink", "mode": "0777", "target": "z"}]
    assert hob(fake, "cp", f"{BOX}:/evil", str(tmp_path / "out")).code != 0
    assert os.listdir(precious) == [] and not (tmp_path / "escaped").exists()
