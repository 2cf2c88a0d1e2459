"""`llmrec-kernels evaluate`: the studies on public data, or models on one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from llmrec_kernels._files import write_text
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences
from llmrec_kernels.cli.making import READERS, TRAINED, Model, Words, reads_items, recommender

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.evaluation import Report


class Split(str, Enum):
    """What is held out of one's own ratings."""

    last = "last"
    ratio = "ratio"
    time = "time"
    random = "random"


@app.command()
def evaluate(
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="Study to run, into --out, where it takes its place on the page; repeat for more, "
            "and a wrong name lists them. All when left out."
        ),
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(help="Your own ratings, CSV or Parquet, instead of the studies."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Your own items, CSV or Parquet; models that read texts need them."),
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="Your own users, CSV or Parquet; for --group.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of --users: metrics by group, and the largest gap."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="With --ratings: ndcg, recall, exposure, ...; repeat for more."),
    ] = None,
    model: Annotated[
        list[Model] | None,
        typer.Option(
            help="With --ratings: what to compare; repeat for more. All that are not trained in "
            "epochs when left out."
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            help="With --ratings: hold out each user's last, a fifth of each user's, all after a "
            "moment, or a fifth at random."
        ),
    ] = Split.last,
    encoder: Annotated[
        str | None,
        typer.Option(help="With --ratings: text encoder of models that read texts."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="With --ratings: length of lists.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Page to write: docs/results.md for studies; standard output for your own "
            "ratings, or .csv, .json or .md.",
        ),
    ] = None,
) -> None:
    """Measure how well recommenders predict, and write docs/results.md.

    Example: llmrec-kernels evaluate --study cold-items --out results.md
    Example: llmrec-kernels evaluate --ratings ratings.csv --items items.csv --model ease
    """
    with errors_as_sentences():
        if ratings is None:
            if items or users or group or metric or model:
                raise ValueError(
                    "--items, --users, --group, --metric and --model are for your own --ratings; "
                    "give these too"
                )
            _studies(study, out)
        elif study:
            raise ValueError("--study is on public data; leave it out, or --ratings")
        else:
            if out is not None:
                checked_output("--out", out, (".csv", ".json", ".md"))
            own = Own(ratings, items, users, group, metric, split, encoder, k)
            _write(own.tables(model), out)


def _studies(names: list[str] | None, out: Path | None) -> None:
    from llmrec_kernels.studies import page

    unknown = [name for name in names or [] if name not in page.STUDIES]
    if unknown:
        raise ValueError(f"--study is {unknown[0]!r}; expected one of {', '.join(page.STUDIES)}")
    if names and out is None:
        raise ValueError(
            "--study makes a part of the page; give --out, for docs/results.md has them all"
        )
    out = out or Path("docs/results.md")
    checked_output("--out", out, (".md",))
    asked = names or list(page.STUDIES)
    left_out = page.run(asked, out, lambda line: typer.echo(line, err=True))
    if len(left_out) == len(asked):
        raise ValueError(f"no study could be run: {left_out[0]}")
    typer.echo(f"wrote {out}", err=True)


class Own(NamedTuple):
    """One's own data, and what to ask of it."""

    ratings: Path
    items: Path | None
    users: Path | None
    group: str | None
    metrics: list[str] | None
    split: Split
    encoder: str | None
    k: int

    def tables(self, rankers: list[Model] | None) -> dict[str, pd.DataFrame]:
        """The metrics of each model, each less those of the first, and by group of users."""
        from llmrec_kernels import evaluation

        interactions, items = self._read()
        train, test = self._divided(interactions)
        if not len(test):
            raise ValueError(f"--split {self.split.value} holds out nothing of {self.ratings}")
        readers = () if items is not None else (*READERS, Model.hybrid)
        chosen = rankers or [one for one in Model if one not in (*readers, *TRAINED)]
        reports = {}
        for ranker in chosen:
            typer.echo(f"{ranker.value} ...", err=True)
            reads = ranker is Model.hybrid or reads_items(ranker, items)
            words = Words(ranker, [], [], False, self.encoder if reads else None, [])
            reports[ranker.value] = evaluation.evaluate(
                recommender(words, items).fit(train, items),
                train,
                test,
                k=self.k,
                items=items,
                metrics=self.metrics or (*evaluation.DEFAULT_METRICS, "exposure"),
                groups=self._groups(),
            )
        return _tables(reports, self.group)

    def _read(self) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        from llmrec_kernels.datasets import read_dataset, read_ratings

        if self.items is None:
            return read_ratings(self.ratings), None
        data = read_dataset(self.ratings, self.items)
        listed = data.interactions["item"].isin(data.items["item"])
        if not listed.all():
            left = (~listed).sum()
            typer.echo(f"{left} ratings of items not in {self.items} are left out", err=True)
        return data.interactions[listed], data.items

    def _divided(self, interactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        from llmrec_kernels import evaluation

        if self.split is Split.last:
            return evaluation.leave_last_out(interactions)
        if self.split is Split.ratio:
            return evaluation.ratio_split(interactions)
        if self.split is Split.time:
            return evaluation.time_split(interactions, test_ratio=0.2)
        return evaluation.random_split(interactions, 0.2)

    def _groups(self) -> pd.DataFrame | None:
        """The group of each user."""
        from llmrec_kernels.datasets import read_users

        if self.users is None and self.group is None:
            return None
        if self.users is None or self.group is None:
            raise ValueError("--users and --group go together; give both, or neither")
        users = read_users(self.users)
        if self.group not in users.columns or self.group == "user":
            held = ", ".join(one for one in users.columns if one != "user")
            raise ValueError(f"--group is {self.group!r}; {self.users} has {held or 'no columns'}")
        groups = users[["user", self.group]].rename(columns={self.group: "group"})
        return groups.assign(group=groups["group"].astype(object).fillna("unknown"))


def _tables(reports: Mapping[str, Report], group: str | None) -> dict[str, pd.DataFrame]:
    """A row a model and metric, so that a terminal has room for them."""
    import pandas as pd

    from llmrec_kernels.evaluation import compare_paired

    rows, differences, gaps = [], [], []
    first = next(iter(reports))
    for name, report in reports.items():
        table = report.to_pandas()[["mean", "low", "high"]]
        rows.append(table.rename_axis("metric").reset_index().assign(model=name))
        for label in report.per_user.columns if name != first else ():
            one = compare_paired(report, reports[first], label)
            differences.append((name, label, one.difference, one.low, one.high, one.p))
        for label in report.per_user.columns if group else ():
            gap = report.gap(label)
            gaps.append((name, label, gap.highest, gap.lowest, gap.difference, gap.low, gap.high))
    tables = {"metrics": pd.concat(rows)[["model", "metric", "mean", "low", "high"]]}
    if differences:
        columns = ["model", "metric", "difference", "low", "high", "p"]
        tables[f"less {first}"] = pd.DataFrame(differences, columns=columns)
    if gaps:
        columns = ["model", "metric", "highest", "lowest", "difference", "low", "high"]
        tables[f"largest gap between groups by {group}"] = pd.DataFrame(gaps, columns=columns)
    return tables


def _write(tables: Mapping[str, pd.DataFrame], out: Path | None) -> None:
    """All tables whole, or none."""
    import pandas as pd

    from llmrec_kernels.studies import Study, Table

    if out is None:
        for caption, table in tables.items():
            text = table.to_string(index=False, float_format=lambda one: f"{one:.4f}", na_rep="")
            typer.echo(f"{caption}\n{text}\n")
    elif out.suffix == ".md":
        sections = [
            Table(caption, table.set_index("model").astype(object).fillna(""), 4)
            for caption, table in tables.items()
        ]
        write_text(Study("Models on your own ratings", "", sections).markdown() + "\n", out)
    elif out.suffix == ".json":
        records = {name: json.loads(one.to_json(orient="records")) for name, one in tables.items()}
        write_text(json.dumps(records, indent=1), out)
    else:
        labelled = [one.assign(table=caption) for caption, one in tables.items()]
        write_text(pd.concat(labelled).to_csv(index=False), out)
