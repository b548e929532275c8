"""Saved tiny models of every family, made once."""

import shutil

import pytest
from tiny_families import RECIPES, tiny

from mipnb.models import save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A saved tiny model of every family."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(*tiny(name), root / name) for name in RECIPES}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy to damage."""
    return shutil.copytree(folders["llava"], tmp_path / "llava")
