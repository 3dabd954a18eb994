"""Reference: a page for every module with public names, made from ``mtbkd_jax`` itself, so that none is forgotten."""

import importlib

from mkdocs.structure.files import File

import mtbkd_jax

_PACKAGES = ("adapters", "imports")
"""Whose ``__all__`` is their interface."""
_MODULES = {
    "runs": ("Run", "StudentConfig", "open_run"),
    "processes": ("Processes",),
    "composition": ("composition_features", "composition_names"),
}
"""Further modules that the guides name, with what they name of them."""


def names_of_module() -> dict[str, tuple[str, ...]]:
    """Public names by module, in alphabetical order of the modules."""
    names: dict[str, list[str]] = {}
    for name in mtbkd_jax.__all__:
        names.setdefault(mtbkd_jax._MODULE_OF_NAME[name], []).append(name)
    for package in _PACKAGES:
        names[package] = list(importlib.import_module(f"mtbkd_jax.{package}").__all__)
    return {module: tuple(of) for module, of in sorted({**names, **_MODULES}.items())}


def _summary(module: str) -> str:
    return importlib.import_module(f"mtbkd_jax.{module}").__doc__.strip().partition("\n")[0]


def _page(module: str, names: tuple[str, ...]) -> str:
    members = "".join(f"        - {name}\n" for name in names)
    return (
        f"---\ntitle: {module}\n---\n\n::: mtbkd_jax.{module}\n    options:\n"
        f"      heading_level: 1\n      show_root_full_path: true\n      members:\n{members}"
    )


def _index(names: dict[str, tuple[str, ...]]) -> str:
    rows = "".join(
        f"| [`{module}`]({module}.md) | {_summary(module)} | {', '.join(f'`{name}`' for name in of)} |\n"
        for module, of in names.items()
    )
    return (
        "---\ntitle: Reference\n---\n\n# Reference\n\n"
        "Names are imported from `mtbkd_jax` itself (`import mtbkd_jax as mt; mt.distil`); those of "
        f"{', '.join(f'`{module}`' for module in (*_PACKAGES, *_MODULES))} from their module "
        "(`from mtbkd_jax.runs import open_run`). The texts are the docstrings.\n\n"
        f"| module | | names |\n|---|---|---|\n{rows}"
    )


def on_config(config, **_):
    pages = ["reference/index.md", *(f"reference/{module}.md" for module in names_of_module())]
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = pages
    return config


def on_files(files, *, config, **_):
    names = names_of_module()
    files.append(File.generated(config, "reference/index.md", content=_index(names)))
    for module, of in names.items():
        files.append(File.generated(config, f"reference/{module}.md", content=_page(module, of)))
    return files
