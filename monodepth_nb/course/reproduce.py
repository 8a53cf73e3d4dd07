"""Run the notebooks and build the report: `make reproduce`, or `python -m monodepth_nb reproduce`.

Leaves under build/: executed copies (.ipynb and .html), figures, one table of results (results.csv) and a page to
look at (index.html).
"""

import html
import os
import time
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from tqdm import tqdm

from monodepth_nb.checkpoints import write_whole
from monodepth_nb.course import ROOT
from monodepth_nb.course.profiles import Profile, choose_profile
from monodepth_nb.course.results import BUILD, load_results

NOTEBOOKS = ROOT / "notebooks"
# The figures that the report shows; the others are in the notebooks.
HIGHLIGHTS = ("sharpening", "what_if", "loss_against_error", "best_median_worst", "points", "arms")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>monodepth_nb: results</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; color: #222 }}
 img {{ max-width: 100%; height: auto }}
 table {{ border-collapse: collapse; font-size: 0.85rem }} div.wide {{ overflow-x: auto }}
 td, th {{ padding: 0.2rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left }}
</style>
<h1>Depth from a single picture</h1>
<p>{provenance}</p>
<h2>Notebooks</h2><ul>{links}</ul>
{sections}
</html>
"""


def reproduce(numbers: list[str], commit: bool = False) -> None:
    """Run the notebooks of these numbers ("02"; none: all) and write the report.

    commit: also store the outputs in notebooks/*.ipynb
    Raises ValueError if there is no such notebook, CellExecutionError if a cell fails.
    """
    profile, started = choose_profile(), time.perf_counter()
    make_absolute()
    scripts = [p for p in sorted(NOTEBOOKS.glob("0*.py")) if not numbers or p.name[:2] in numbers]
    if not scripts:
        raise ValueError(f"no notebook of {NOTEBOOKS} is called {', '.join(numbers)}")
    print(f"profile {profile.name}: {len(scripts)} notebooks")
    for script in scripts:
        notebook = execute(script, profile)
        copy = BUILD / profile.name / f"{script.stem}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        for path in (copy, script.with_suffix(".ipynb")) if commit else (copy,):
            write_text(path, jupytext.writes(notebook, fmt="ipynb"))
        write_text(copy.with_suffix(".html"), HTMLExporter().from_notebook_node(notebook)[0])
    page = write_page(profile, (time.perf_counter() - started) / 60)
    print(f"results: {BUILD / 'results.csv'}\nlook at: {page}")


def make_absolute() -> None:
    """Make the paths in the environment absolute, because kernels run in notebooks/."""
    for name in ("MONODEPTH_BUILD", "MONODEPTH_DATA", "MONODEPTH_PHOTO", "MONODEPTH_STEREO"):
        value = os.environ.get(name)
        if value and value not in ("streets", "kitti2015"):
            os.environ[name] = str(Path(value).absolute())


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole: if this process is killed, the old one is left."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


# ---- One notebook ----


def execute(path: Path, profile: Profile) -> nbformat.NotebookNode:
    """The notebook `path` (.py), run in its own folder, with outputs. Raises CellExecutionError if a cell fails."""
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder = {"metadata": {"path": path.parent}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=folder)
    os.environ["MONODEPTH_PROFILE"] = profile.name
    code_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=code_cells, desc=path.stem, unit="cell") as bar:
        client.on_cell_executed = lambda **_: bar.update()
        client.execute()
    return cleaned(notebook)


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop progress bars (stderr, and widgets, which need a live kernel) and run times. Hide paths."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not is_widget(o)]
            for output in cell.outputs:
                store_photo_as_jpeg(output)
                hide_paths(output)
    notebook.metadata.pop("widgets", None)
    return notebook


def is_widget(output) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def store_photo_as_jpeg(output, from_bytes: int = 100_000) -> None:
    """Recode a large PNG: a figure that holds photographs is several times smaller as JPEG. Line drawings stay PNG."""
    png = b64decode(output.get("data", {}).get("image/png", ""))
    if len(png) > from_bytes:
        jpeg = BytesIO()
        Image.open(BytesIO(png)).convert("RGB").save(jpeg, "JPEG", quality=88)
        del output["data"]["image/png"]
        output["data"]["image/jpeg"] = b64encode(jpeg.getvalue()).decode()


def hide_paths(output) -> None:
    """Shorten paths of this machine in the messages that name files."""
    if "text" in output:
        for path, short in sorted(((str(ROOT), "."), (str(Path.home()), "~")), key=lambda pair: -len(pair[0])):
            output["text"] = output["text"].replace(path, short)  # the longer first: one may be a prefix of the other


# ---- The page ----


def write_page(profile: Profile, minutes: float) -> Path:
    """build/index.html: verdicts, results, pictures and links, readable without a network."""
    folder = BUILD / profile.name
    results = load_results(profile)
    results.to_csv(BUILD / "results.csv", index=False)
    names = sorted(p.stem for p in folder.glob("*.html"))
    links = "".join(f'<li><a href="{profile.name}/{n}.html">{n.replace("_", " ")}</a></li>' for n in names)
    sections = ""
    if (folder / "verdicts.csv").is_file():
        sections += "<h2>Verdicts</h2>" + table(pd.read_csv(folder / "verdicts.csv").fillna(""))
    sections += "<h2>Pictures</h2>" + "".join(
        f'<p><img src="{profile.name}/figures/{p.name}" alt="{html.escape(p.stem)}" loading="lazy"></p>'
        for p in sorted((folder / "figures").glob("*.png"))
        if p.stem.endswith(HIGHLIGHTS)
    )
    summary = results.groupby(["notebook", "data", "experiment", "metric"], sort=False)["value"]
    sections += "<h2>Results</h2>" + table(summary.agg(["mean", "min", "max", "count"]).reset_index())
    provenance = f"{profile.label('all notebooks')}; {time.strftime('%Y-%m-%d')}; {minutes:.0f} min in total"
    page = BUILD / "index.html"
    page.write_text(PAGE.format(provenance=html.escape(provenance), links=links, sections=sections), encoding="utf-8")
    return page


def table(frame: pd.DataFrame) -> str:
    return f'<div class="wide">{frame.to_html(index=False, float_format="%.4g", border=0)}</div>'
