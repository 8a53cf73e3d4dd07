"""Run the notebooks and build the report: `make reproduce`, or `python -m monodepth_nb reproduce`.

Leaves under build/: executed copies (.ipynb and .html), figures, one table of results (results.csv) and a page to
look at (index.html).
"""

import asyncio
import html
import json
import os
import time
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from tqdm import tqdm

from monodepth_nb.course import ROOT
from monodepth_nb.course.profiles import Profile, choose_profile
from monodepth_nb.course.results import BUILD, NOTEBOOKS, code_behind, load_results, save
from monodepth_nb.data.download import build_folder, data_folder
from monodepth_nb.inference import read_photo

# The figures that the report shows; the others are in the notebooks.
HIGHLIGHTS = ("sharpening", "what_if", "loss_against_error", "street_1", "what_it_looks_at", "arms")
STOPPED = "_async_cleanup_kernel_future"  # what nbclient sets when Ctrl-C has reached it
WIDGET = "application/vnd.jupyter.widget-view+json"
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>monodepth_nb: results</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { font-family: sans-serif; max-width: 60rem; margin: auto } img { max-width: 100% }
table { display: block; overflow-x: auto; border-collapse: collapse }</style>
<h1>Depth from a single picture</h1>
"""


def reproduce(numbers: list[str], commit: bool = False) -> None:
    """Run the notebooks of these numbers ("02") and write the report.

    Without numbers: the first notebook that was not yet run with this code and profile, and all after it.
    commit: also store the outputs in notebooks/*.ipynb
    Raises ValueError if there is no such notebook, CellExecutionError if a cell fails.
    """
    make_absolute()
    profile, started = choose_profile(), time.perf_counter()
    if not NOTEBOOKS.is_dir():
        raise ValueError(f"{NOTEBOOKS} does not exist: clone the repository, and run this command in it")
    if photo := os.environ.get("MONODEPTH_PHOTO"):
        read_photo(photo)  # a wrong path should be reported now, not at the end of a notebook
    scripts = sorted(NOTEBOOKS.glob("0*.py"))
    known = [p.name[:2] for p in scripts]
    if unknown := [number for number in numbers if number not in known]:
        raise ValueError(f"no notebook of {NOTEBOOKS} is called {', '.join(unknown)}; known: {', '.join(known)}")
    scripts = [p for p in scripts if not numbers or p.name[:2] in numbers]
    while not numbers and scripts and is_done(scripts[0], profile, commit):
        name = scripts.pop(0).stem
        print(f"{name} is up to date; to run it again: python -m monodepth_nb reproduce {name[:2]}")
    print(f"profile {profile.name}: {len(scripts)} notebooks")
    for script in scripts:
        code = code_behind(script.stem, profile)
        notebook = execute(script, profile)
        notebook.metadata["code"] = code  # with another one, the page says that this copy is out of date
        paths = outputs_of(script, profile, commit)
        for path in paths:
            save(path, Path.write_text, data=jupytext.writes(notebook, fmt="ipynb") + "\n", encoding="utf-8")
        page = HTMLExporter().from_notebook_node(notebook)[0]
        save(paths[0].with_suffix(".html"), Path.write_text, data=page, encoding="utf-8")
    page = write_page(profile, (time.perf_counter() - started) / 60)
    print(f"results: {BUILD / 'results.csv'}\nlook at: {page}")


def make_absolute() -> None:
    """Make the paths in the environment absolute, because the kernels run in notebooks/."""
    for name, folder in (("MONODEPTH_BUILD", build_folder()), ("MONODEPTH_DATA", data_folder())):
        os.environ[name] = str(folder.absolute())  # else kernels would use other defaults outside of a checkout
    for name in ("MONODEPTH_PHOTO", "MONODEPTH_STEREO"):
        if os.environ.get(name, "") not in ("", "streets", "kitti2015"):
            os.environ[name] = str(Path(os.environ[name]).absolute())


def outputs_of(script: Path, profile: Profile, commit: bool) -> list[Path]:
    """Where the executed notebook is written: first the copy under build/."""
    copy = BUILD / profile.name / f"{script.stem}.ipynb"
    return [copy, script.with_suffix(".ipynb")] if commit else [copy]


def is_done(script: Path, profile: Profile, commit: bool) -> bool:
    """Whether all outputs of a run exist and come from the current code and profile."""
    paths, code = outputs_of(script, profile, commit), code_behind(script.stem, profile)
    return all(path.is_file() and metadata_of(path).get("code") == code for path in paths)


def metadata_of(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))["metadata"]


# ---- One notebook ----


def execute(path: Path, profile: Profile) -> nbformat.NotebookNode:
    """The notebook `path` (.py), run in its own folder, with outputs. Raises CellExecutionError if a cell fails."""
    notebook = jupytext.read(path, config=load_jupytext_config(str(path)))  # so that saving in Jupyter changes nothing
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    os.environ["MONODEPTH_PROFILE"] = profile.name
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}})
    with tqdm(total=sum(cell.cell_type == "code" for cell in notebook.cells), desc=path.stem, unit="cell") as bar:
        client.on_cell_executed = lambda **_: bar.update()
        try:
            client.execute()
        except BaseException as error:  # nbclient ends its kernel at Ctrl-C, and fails in one of several ways
            if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)) or hasattr(client, STOPPED):
                raise KeyboardInterrupt(f"in {path.name}; the same command runs it again") from None
            raise
    return cleaned(notebook)


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop progress bars (stderr, and widgets, which need a live kernel) and run times. Hide paths."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = (o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {}))
            cell.outputs = [stored(output) for output in kept]
    return notebook


def stored(output, photo_from_bytes: int = 100_000):
    """The output without paths of this machine, and with large PNGs, which hold photographs, as smaller JPEGs."""
    png = b64decode(output.get("data", {}).get("image/png", ""))
    if len(png) > photo_from_bytes:
        jpeg = BytesIO()
        Image.open(BytesIO(png)).convert("RGB").save(jpeg, "JPEG", quality=88)
        del output["data"]["image/png"]
        output["data"]["image/jpeg"] = b64encode(jpeg.getvalue()).decode()
    if "text" in output:
        for path, short in sorted(((str(ROOT), "."), (str(Path.home()), "~")), key=lambda pair: -len(pair[0])):
            output["text"] = output["text"].replace(path, short)  # the longer first: one may be a prefix of the other
    return output


# ---- The page ----


def write_page(profile: Profile, minutes: float) -> Path:
    """build/index.html: provenance, links, verdicts, results and pictures, readable without a network."""
    folder, results = BUILD / profile.name, load_results(profile)
    copies = {p.stem: metadata_of(p) for p in folder.glob("*.ipynb")}
    stale = [name for name, metadata in copies.items() if metadata.get("code") != code_behind(name, profile)]
    save(BUILD / "results.csv", results.to_csv, index=False)
    groups = results.groupby(["notebook", "data", "experiment", "metric"], sort=False)["value"]
    tables = {"Results": groups.agg(["mean", "min", "max", "count"]).reset_index()}
    if (folder / "verdicts.csv").is_file() and not stale:
        tables = {"Verdicts": pd.read_csv(folder / "verdicts.csv").fillna("")} | tables
    provenance = f"{profile.label('all notebooks')}; {time.strftime('%Y-%m-%d')}; the last run took {minutes:.0f} min"
    parts = [HEAD, html.escape(provenance), "<h2>Notebooks</h2>"]
    for name in sorted(p.stem for p in folder.glob("*.html")):
        note = " (run with other code than there is now)" if name in stale else ""
        parts.append(f'<p><a href="{profile.name}/{name}.html">{name}</a>{note}</p>')
    parts += [f"<h2>{name}</h2>{t.to_html(index=False, float_format='%.4g')}" for name, t in tables.items()]
    pictures = [p.name for p in sorted((folder / "figures").glob("*.png")) if p.stem.endswith(HIGHLIGHTS)]
    pictures = [name for name in pictures if not name.startswith(tuple(stale))]
    parts += [f'<p><img src="{profile.name}/figures/{name}" alt="{name}"></p>' for name in pictures]
    page = BUILD / "index.html"
    save(page, Path.write_text, data="\n".join(parts), encoding="utf-8")
    return page
