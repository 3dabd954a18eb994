"""Reference: a page for every module with public names, made from ``mtbkd_jax`` itself, so that none is forgotten."""

import importlib

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import mtbkd_jax

_PACKAGES = ("adapters", "imports", "regression", "report", "samplers")
"""Whose ``__all__`` is their interface."""
_MODULES = {
    "composition": ("composition_features", "composition_names"),
    "folds": ("deal_folds",),
    "processes": ("Processes",),
    "runs": ("Run", "StudentConfig", "open_run"),
}
"""Further modules that the guides name, with what they name of them."""


def names_of_module() -> dict[str, tuple[str, ...]]:
    """Public names by module, in alphabetical order of the modules."""
    names: dict[str, set[str]] = {module: set(of) for module, of in _MODULES.items()}
    for name in mtbkd_jax.__all__:
        names.setdefault(mtbkd_jax._MODULE_OF_NAME[name], set()).add(name)
    for package in _PACKAGES:
        names.setdefault(package, set()).update(importlib.import_module(f"mtbkd_jax.{package}").__all__)
    return {module: tuple(sorted(names[module])) for module in sorted(names)}


def path_of(module: str, name: str) -> str:
    """Where a name is defined, which a package only hands on."""
    found = getattr(importlib.import_module(f"mtbkd_jax.{module}"), name)
    home = getattr(found, "__module__", None) or f"mtbkd_jax.{module}"
    return f"{home if home.startswith('mtbkd_jax') else f'mtbkd_jax.{module}'}.{name}"


def _summary(module: str) -> str:
    return importlib.import_module(f"mtbkd_jax.{module}").__doc__.strip().partition("\n")[0]


def _page(module: str, names: tuple[str, ...]) -> str:
    """The module's own docstring, and those of its names."""
    top = f"---\ntitle: {module}\n---\n\n::: mtbkd_jax.{module}\n    options:\n"
    top += "      heading_level: 1\n      show_root_full_path: true\n      members: false\n"
    return top + "".join(f"\n::: {path_of(module, name)}\n" for name in names)


def _index(names: dict[str, tuple[str, ...]]) -> str:
    def shown(module: str, name: str) -> str:
        return f"`{name}`" if mtbkd_jax._MODULE_OF_NAME.get(name) == module else f"`{module}.{name}`"

    rows = "".join(
        f"| [`{module}`]({module}.md) | {_summary(module)} | {', '.join(shown(module, name) for name in of)} |\n"
        for module, of in names.items()
    )
    return (
        "---\ntitle: Reference\n---\n\n# Reference\n\n"
        "Names are imported from `mtbkd_jax` itself (`import mtbkd_jax as mt; mt.distil`); those that have a module "
        "before them here from that (`from mtbkd_jax.runs import open_run`). The texts are the docstrings.\n\n"
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


def on_page_content(html: str, *, page, **_) -> None:
    module = page.file.src_uri.removeprefix("reference/").removesuffix(".md")
    for name in names_of_module().get(module, ()) if page.file.src_uri.startswith("reference/") else ():
        if f'id="{path_of(module, name)}"' not in html:
            raise PluginError(f"{page.file.src_uri} has nothing of {name}")
