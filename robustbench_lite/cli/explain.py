"""The command `explain`: what a run's models look at in one sample."""

from __future__ import annotations

from pathlib import Path

import click

from robustbench_lite.cli.run import ask_for_code


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--sample", type=int, required=True, help="Its sample_id, as in the records and the gallery.")
@click.option("--embedding", type=click.Choice(["pca", "tsne", "none"]), default="pca", show_default=True,
              help="How networks' embeddings are put in a plane; none: no images are made.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="A folder.  [default: FOLDER/explained]")
@click.option("--device", help="cpu, cuda, cuda:1 or auto.  [default: the run's]")
@click.option("--trust", is_flag=True, help="Call the code that the run names without asking.")
def explain(
    folder: Path, sample: int, embedding: str, out: Path | None, device: str | None, trust: bool
) -> None:
    """Draw what the models of the run in FOLDER look at in one sample, before and after each attack on it.

    Gradients, integrated and smooth ones, occlusion; of networks an image with the same embedding, Grad-CAM
    and guided gradients (extra [explain]), where the sample lies among the others, and what image of each
    class it is surest of.
    """
    from robustbench_lite.cli.terminal import watching
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.records.schema import whole
    from robustbench_lite.reports.figures import attributions, plots
    from robustbench_lite.runs.config import make, read
    from robustbench_lite.runs.explain import embedded
    from robustbench_lite.runs.explain import explain as looked_at
    from robustbench_lite.runs.plan import Subject, plan

    held = Folder.open(folder)
    written = read(folder / "config.toml")
    settled = make({**written, "device": device} if device else written)
    ask_for_code(settled, True, trust)
    home = out or folder / "explained"
    with watching(False) as watch:
        planned = plan(settled, Subject.of(settled), watch)
        found = looked_at(planned, held, sample, watch)
        clouds = [] if embedding == "none" else embedded(planned, held, sample, embedding)
    names = planned.workshop.data.class_names
    drawn = {}
    for number, one in enumerate(found):
        captions = [
            names[c] if sure != sure else f"{names[c]}, {sure:.1%}"
            for c, sure in zip(one.predictions, one.confidences, strict=True)
        ]
        click.echo(f"{one.job}: {captions[0]} -> {captions[1]}")
        figure = attributions.looks(one.job, one.images, captions, one.maps, one.inverted)
        drawn[f"sample-{sample}-{number}.png"] = figure
    for said in dict.fromkeys(said for one in found for said in one.left_out):
        click.echo(f"left out: {said}")
    for number, cloud in enumerate(clouds):
        title = (
            f"{cloud.model}: {embedding} of {len(cloud.points)} embeddings, and the way of sample {sample}"
        )
        figure = attributions.cloud(title, cloud.points, cloud.labels, names, cloud.ways)
        drawn[f"sample-{sample}-embedding-{number}.png"] = figure
        title = f"{cloud.model}: smooth images that it is surest of, class by class"
        drawn[f"classes-{number}.png"] = attributions.sheet(title, cloud.class_images, names)
    for name, figure in drawn.items():
        with whole(home / name) as temporary, plots.style():
            figure.savefig(temporary, format="png", dpi=200, facecolor="white")
        click.echo(home / name)
