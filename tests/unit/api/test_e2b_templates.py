"""An E2B template id stands for an image, a template or a snapshot."""

from uuid import uuid4

import pytest

from runner.api.e2b.templates import THEIRS, Source, resolve
from runner.base.recipe import read_recipe
from runner.base.settings import Settings
from runner.words.errors import NotFound
from runner.words.sandbox import UnixAccount


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_a_template_of_theirs_is_the_image_of_that_name(name: str) -> None:
    """With their default tag as well. Its user and home are those that their users expect."""
    images = ("python", name)
    for asked in (name, f"{name}:default", f"{name}:latest"):
        assert resolve(asked, images, {}) == Source(image=name)
    assert read_recipe(Settings().recipes_path, name).account == UnixAccount("user", "/home/user")


def test_an_image_or_a_snapshot_is_a_template() -> None:
    id_ = uuid4()
    assert resolve("python", ("python",), {}) == Source(image="python")
    assert resolve(f"{id_}:default", ("python",), {}) == Source(snapshot=id_, public=False)


def test_an_operators_further_name_for_an_image_is_a_template() -> None:
    names = {"python:3.12": "python", "e2bdev/base": "base"}
    assert resolve("python:3.12", ("python",), names) == Source(image="python")
    with pytest.raises(NotFound, match=r"there are python, python:3\.12, snapshots"):
        resolve("e2bdev/base", ("python",), names)


@pytest.mark.parametrize("name", ["nobodys", "python:v2", "base:v2", "code-interpreter"])
def test_another_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(NotFound, match="there are base, python, snapshots"):
        resolve(name, ("python", "base"), {})


def test_a_template_that_the_operator_left_out_is_refused_with_the_setting() -> None:
    """Nothing else stands in for it: its home would be another."""
    with pytest.raises(NotFound, match=r"no template 'base'.*add base to RUNNER_IMAGES"):
        resolve("base", ("python", "code"), {})
