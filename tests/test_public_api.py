"""The surface of the library: ten names, and nothing that a user must import from elsewhere."""

from __future__ import annotations

import inspect

import pytest

import vfscreen

NAMES = {
    "load_models",
    "read_volume",
    "screen",
    "run",
    "Volume",
    "Settings",
    "StudyResult",
    "genant_ratio",
    "grade",
    "VfscreenError",
}


def test_the_package_exports_ten_names():
    assert set(vfscreen.__all__) == NAMES
    assert len(vfscreen.__all__) == 10


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_loads_and_is_documented(name):
    assert inspect.getdoc(getattr(vfscreen, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        vfscreen.segment  # noqa: B018


def test_every_error_is_a_vfscreen_error():
    from vfscreen import errors

    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) > 8
    assert all(issubclass(c, vfscreen.VfscreenError) for c in classes)


def test_every_study_error_has_a_code_of_its_own():
    from vfscreen.errors import StudyError

    codes = [c.code for c in (StudyError, *StudyError.__subclasses__())]
    assert len(set(codes)) == len(codes)
