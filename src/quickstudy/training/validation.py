"""Validation during training, on training classes, novel classes and novel domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quickstudy.core import ConfigError, EpisodeSpec, ProtocolError, TaskError
from quickstudy.evaluation import Report, evaluate
from quickstudy.learners.base import Learner
from quickstudy.tasks import AugmentedSource, PoolSource, TaskSource
from quickstudy.training.config import ValidationConfig
from quickstudy.training.overfitting import NOVEL, TRAINING

__all__ = ["Validator", "curve_line", "domain_spec", "log_line"]


@dataclass(frozen=True, slots=True)
class _List:
    """A fixed list of episodes."""

    source: TaskSource
    spec: EpisodeSpec
    episodes: int


def domain_spec(spec: EpisodeSpec, source: TaskSource) -> EpisodeSpec:
    """Return the size of episodes in a domain: no more classes per task than the domain has."""
    if not isinstance(source, PoolSource) or spec.max_way <= source.pool.n_classes:
        return spec
    most = source.pool.n_classes
    way = spec.n_way
    return replace(
        spec, n_way=most if isinstance(way, int) else (min(way[0], most), min(way[1], most))
    )


class Validator:
    """Scores a learner on the same episodes at every validation; it does not change the learner.

    Args:
        config: sizes and numbers of episodes, and the domains to score.
        source: training episodes; they are scored without augmentation.
        validation: episodes of validation classes.
        domains: a source for each name in ``config.domains``.
        seed: of the lists of episodes.
        warn: is called with a sentence if the training classes cannot be scored.

    Raises:
        ConfigError: if the names of the domains are not those of the configuration.
        ProtocolError: if a domain is the data set that is trained on.
        TaskError: if a domain has too few classes or examples for such episodes.
    """

    def __init__(
        self,
        config: ValidationConfig,
        source: TaskSource,
        validation: TaskSource,
        domains: Mapping[str, TaskSource],
        *,
        seed: int,
        warn: Callable[[str], None],
    ) -> None:
        self._config, self._seed = config, seed
        self._lists = {NOVEL: _List(validation, config.spec, config.episodes)}
        _check_names(config, source, validation, domains)
        if config.watch_episodes:
            self._add_training(source, warn)
        for name in config.domains:
            n = config.episodes if name == config.choose_by else config.watch_episodes
            spec = domain_spec(config.spec, domains[name])
            _try(domains[name], spec, seed)
            self._lists[name] = _List(domains[name], spec, n)

    @property
    def keeps_curve(self) -> bool:
        """Whether anything but the validation classes is scored."""
        return len(self._lists) > 1

    def _add_training(self, source: TaskSource, warn: Callable[[str], None]) -> None:
        plain = source.source if isinstance(source, AugmentedSource) else source
        spec = domain_spec(self._config.spec, plain)
        try:
            _try(plain, spec, self._seed)
        except TaskError as error:
            # the score of training classes is an extra: training must not fail for lack of it
            warn(f"training classes are not followed: {error}")
            return
        self._lists = {TRAINING: _List(plain, spec, self._config.watch_episodes), **self._lists}

    def reports(self, learner: Learner) -> dict[str, Report]:
        """Return the score of each list, by its name."""
        return {
            name: evaluate(
                learner,
                one.source,
                one.spec,
                episodes=one.episodes,
                seed=self._seed,
                likelihood=False,  # the mean alone decides, and learners of a mean would be slow
            )
            for name, one in self._lists.items()
        }

    def chosen(self, reports: Mapping[str, Report]) -> float:
        """Return the score that decides which weights are kept; more is better."""
        report = reports[self._config.choose_by]
        return report.mean if report.metric.higher_is_better else -report.mean


def log_line(step: int, reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return the line of the log: means and half-widths of their 95 % intervals."""
    names = {NOVEL: "validation", TRAINING: "training"}
    line: dict[str, Any] = {"step": step}
    # validation first, as in the logs of versions that scored nothing else
    for name in sorted(reports, key=lambda name: name != NOVEL):
        key = names.get(name, f"domain/{name}")
        score = reports[name].score
        line |= {key: score.mean, f"{key}_ci95": score.ci95}
    return line


def curve_line(step: int, reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return the line of the curve: the score of each episode."""
    scores = {name: report.scores.round(6).tolist() for name, report in reports.items()}
    return {"step": step, "metric": reports[NOVEL].protocol.metric, "scores": scores}


def _check_names(
    config: ValidationConfig,
    source: TaskSource,
    validation: TaskSource,
    domains: Mapping[str, TaskSource],
) -> None:
    if set(domains) != set(config.domains):
        raise ConfigError(
            f"validation.domains names {sorted(config.domains)}, and the sources given are "
            f"{sorted(domains)}. Give one source for each name."
        )
    for name, domain in domains.items():
        if domain.name in (source.name, validation.name):
            raise ProtocolError(
                f"the domain {name!r} is {domain.name}, which is trained on: its classes are no "
                "new domain, and its test split would be tuned on. Name another data set."
            )


def _try(source: TaskSource, spec: EpisodeSpec, seed: int) -> None:
    """Draw one episode, so that an impossible size is refused before the first step."""
    source.episodes(spec, [0], seed=seed)
