# SPDX-License-Identifier: Apache-2.0
"""The example dashboard asks for nothing but what the metrics file has.

A check of a query is a function; the planted queries at the end prove that it can fail.
"""

from collections.abc import Iterator
import json
import pathlib
import re
from typing import Any

import pytest

from nova_qcache.reports import metrics
from tests.unit.reports.test_metrics import FIGURES

ROOT = pathlib.Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / 'etc/grafana/nova-qcache.json').read_text())

NAME = re.compile(r'\bnova_qcache_\w+')
SELECTOR = re.compile(r'(?P<name>nova_qcache_\w+)\s*(?:\{(?P<labels>[^}]*)\})?')
MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
GROUPED = re.compile(r'\b(?:by|without|on|ignoring)\s*\(([^)]*)\)')
SCRAPED = {'instance', 'job'}
"""Labels that Prometheus adds."""


def written() -> dict[str, dict[str, set[str]]]:
    """Return the values of the labels of each sample that the metrics file has."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in metrics.families(FIGURES):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


WRITTEN = written()


def complaints(query: str) -> Iterator[str]:
    """Yield what a query asks for and nobody writes."""
    selectors = list(SELECTOR.finditer(query))
    if not selectors:
        yield f'no metric of ours in {query}'
    labels: set[str] = set(SCRAPED)
    for selector in selectors:
        name = selector['name']
        if name not in WRITTEN:
            yield f'nobody writes {name}'
            continue
        labels |= WRITTEN[name].keys()
        for matcher in MATCHER.finditer(selector['labels'] or ''):
            label, value = matcher['label'], matcher['value']
            if label in SCRAPED:
                continue
            if label not in WRITTEN[name]:
                yield f'{name} has no label {label}'
            elif matcher['how'] == '=' and value not in WRITTEN[name][label]:
                yield f'{name} has no {label} {value}'
        if name.endswith('_total') and re.search(r'\b(?:delta|deriv)\(', query):
            yield f'{name} is a counter'
        if not name.endswith('_total') and re.search(rf'(?:rate|increase)\({name}\b', query):
            yield f'{name} is no counter'
    for group in GROUPED.finditer(query):
        for label in group[1].split(','):
            if label.strip() not in labels:
                yield f'nothing in {query} has a label {label.strip()}'


def queries() -> list[tuple[str, str]]:
    """Return all queries, with the titles of their panels."""
    found = [
        (panel['title'], target['expr'])
        for panel in DASHBOARD['panels']
        for target in panel['targets']
    ]
    return found


@pytest.mark.parametrize(('title', 'query'), queries())
def test_queries(title, query):
    assert list(complaints(query)) == []


@pytest.mark.parametrize('target', [t for p in DASHBOARD['panels'] for t in p['targets']])
def test_legends_name_labels_that_are_left(target):
    legend = set(re.findall(r'\{\{(\w+)\}\}', target['legendFormat']))
    grouped = {
        label.strip()
        for group in GROUPED.finditer(target['expr'])
        for label in group[1].split(',')
    }
    assert legend <= grouped


def test_variables():
    variables = {each['name']: each for each in DASHBOARD['templating']['list']}
    assert variables['datasource']['type'] == 'datasource'
    assert variables['datasource']['query'] == 'prometheus'
    (name,) = NAME.findall(variables['instance']['query']['query'])
    assert name in WRITTEN
    used = set(re.findall(r'\$\{?(\w+)', json.dumps(DASHBOARD['panels'])))
    assert used <= variables.keys() | {'__rate_interval'}


def test_panels():
    panels: list[dict[str, Any]] = DASHBOARD['panels']
    assert len({panel['id'] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel['datasource'] == {'type': 'prometheus', 'uid': '${datasource}'}
        place = panel['gridPos']
        assert place['x'] + place['w'] <= 24, panel['title']
        cells = {
            (place['x'] + x, place['y'] + y) for x in range(place['w']) for y in range(place['h'])
        }
        assert not cells & taken, f'{panel["title"]} covers another panel'
        taken |= cells
        references = [target['refId'] for target in panel['targets']]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize(
    ('query', 'complaint'),
    [
        ('sum(nova_qcache_boot_total)', 'nobody writes nova_qcache_boot_total'),
        ('rate(nova_qcache_boots_total{kind="plays"}[5m])', 'has no kind plays'),
        ('nova_qcache_boots_total{knd="play"}', 'has no label knd'),
        ('sum by (image) (nova_qcache_boots_total)', 'has a label image'),
        ('rate(nova_qcache_guests[5m])', 'is no counter'),
        ('deriv(nova_qcache_boots_total[5m])', 'is a counter'),
        ('up', 'no metric of ours'),
    ],
)
def test_a_wrong_query_is_found(query, complaint):
    assert complaint in '; '.join(complaints(query))
