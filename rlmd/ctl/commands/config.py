"""``rlmctl config``: what is set, whether it is right, where it stands. Needs no daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl.exits import Exit
from rlmd.ctl.running import leave

if TYPE_CHECKING:
    from rlmd.ctl.terminal import Output

app = typer.Typer(help="The settings and their files.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def show(
    effective: Annotated[
        bool, typer.Option("--effective", help="With the defaults of everything that is not set.")
    ] = False,
) -> None:
    """Print the settings of all files together, as TOML."""

    def work(output: Output) -> None:
        from rlmd.config import Paths, load_settings
        from rlmd.ctl.terminal import shown
        from rlmd.tomltext import toml_of

        paths = Paths.from_environment()
        settings = load_settings(paths).model_dump(mode="json", exclude_unset=not effective)
        if settings:
            output.out.write(shown(toml_of(settings)).lstrip("\n"))
        else:
            output.remark(f"Nothing is set in {paths.config}: everything has its default (--effective shows them).")

    leave(work)


@app.command()
def check() -> None:
    """Check all config files; each problem is a line."""

    def work(output: Output) -> Exit:
        from rlmd.config import Paths, check_settings
        from rlmd.ctl.terminal import shown

        paths = Paths.from_environment()
        _, problems = check_settings(paths)
        for problem in problems:
            output.print(shown(str(problem)))
        if not problems:
            files = ", ".join(map(str, paths.config_files)) or f"no config file in {paths.config}"
            output.remark(f"Nothing is wrong: {files}.")
        return Exit.ERROR if problems else Exit.DONE

    leave(work)


@app.command()
def path() -> None:
    """Print where settings, state, cache and socket are."""

    def work(output: Output) -> None:
        from rlmd.config import Paths

        paths = Paths.from_environment()
        files = [("config", str(file)) for file in paths.config_files] or [("config", f"{paths.config}/config.toml")]
        for name, folder in (*files, ("state", paths.state), ("cache", paths.cache), ("socket", paths.socket)):
            output.print(f"{name}\t{folder}")

    leave(work)
