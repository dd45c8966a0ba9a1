"""Where times come from: measured where measured, modelled where said, and nowhere made up."""

from pathlib import Path

import pytest

from veltair.core.values import Footprint, LatencyTable, LayerBlock, Model, ModelName, Variant
from veltair.errors import ConfigError
from veltair.simulate.costs import DATA, ZOO, collect_tables, read_layers, read_models, read_tables, write_tables
from veltair.simulate.scaling import FITTED_CORES, KAPPA, fit, law, scale_model, serial_share
from veltair.simulate.workload import Costs, ModelSource


def model(rows: dict[int, tuple[int, ...]], levels: tuple[float, ...] = (0.0,)) -> Model:
    return Model(ModelName("m"), (LayerBlock("b", (Variant("v", LatencyTable(levels, rows), Footprint(0, 0)),)),))


def test_the_published_table_is_read_as_it_is() -> None:
    layers = read_layers(DATA / "resnet50_layer_us.csv")
    assert len(layers) == 53
    assert [sum(layer[c] for layer in layers) for c in (8, 56, 64)] == [22376, 4342, 6606]


def test_kappa_is_what_fits_the_published_table_best_and_the_law_errs_as_little_as_is_said() -> None:
    found = fit([{c: layer[c] for c in FITTED_CORES} for layer in read_layers(DATA / "resnet50_layer_us.csv")])
    assert found.kappa == pytest.approx(KAPPA, rel=0.01)
    assert found.median_error == pytest.approx(0.03, abs=0.005)
    assert found.p90_error == pytest.approx(0.08, abs=0.005)


def test_the_law_gives_back_a_table_that_it_made() -> None:
    layers = [{c: round(1e6 * law(sigma, c, 2e-4)) for c in (1, 2, 8, 16, 32, 64)} for sigma in (0.0, 0.02, 0.3)]
    assert fit(layers).kappa == pytest.approx(2e-4, rel=0.01)


def test_the_serial_share_comes_from_one_and_two_cores_and_stays_a_share() -> None:
    assert serial_share(1_000, 600, 0.0) == pytest.approx(0.2)
    assert serial_share(1_000, 480) == 0.0  # faster than two cores can be: noise
    assert serial_share(1_000, 1_300) == 1.0


def test_measured_rows_stay_and_modelled_ones_keep_the_measured_sensitivity() -> None:
    measured = model({1: (1_000, 1_100), 2: (600, 900)}, levels=(0.0, 1.0))
    table = scale_model(measured, 8).blocks[0].variants[0].table
    assert (table.rows_us[1], table.rows_us[2]) == ((1_000, 1_100), (600, 900))
    assert sorted(table.rows_us) == [1, 2, 3, 4, 5, 6, 8]
    quiet_us, crowded_us = table.rows_us[4]
    assert quiet_us == pytest.approx(1_000 * law(0.2, 4), abs=1)
    assert crowded_us / quiet_us == pytest.approx(1.5, rel=0.01)


def test_what_was_measured_on_one_core_alone_is_not_scaled() -> None:
    assert scale_model(model({1: (1_000,)}), 64) == model({1: (1_000,)})


def test_a_row_is_said_to_be_measured_or_modelled() -> None:
    [known] = read_models({"resnet50"}, Costs(), {}, Path(), 16).values()
    assert known.measured_cores == (1, 2)
    assert known.modelled_cores == (3, 4, 5, 6, 8, 10, 12, 16)
    assert known.source.startswith("measured, ")
    [unscaled] = read_models({"resnet50"}, Costs(scale="none"), {}, Path(), 16).values()
    assert unscaled.modelled_cores == ()


def test_a_csv_of_layers_becomes_a_model_of_its_blocks(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("layer,cores_1,cores_4\n0,40,12\n1,20,9\n")
    [known] = read_models({"m"}, Costs(), {"m": ModelSource(name="m", csv="l.csv")}, tmp_path, 4).values()
    assert [block.variants[0].table.rows_us for block in known.model.blocks] == [{1: (40,), 4: (12,)}, {1: (20,), 4: (9,)}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the header must be like layer,cores_8,cores_16"),
        ("layer,eight\n0,5\n", "line 1: column 'eight' must be like cores_8"),
        ("layer,cores_8\n0,5\n1,5,6\n", "line 3: 3 cells, the header has 2"),
        ("layer,cores_8\n0,fast\n", "line 2: times must be whole microseconds"),
        ("layer,cores_8\n\n0,0\n", "line 3: a time is 0 us; it must be 1 or more"),
        ("layer,cores_8\n", "there is no layer below the header"),
    ],
)
def test_a_bad_csv_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_layers(tmp_path / "l.csv")
    assert said in str(raised.value)


def test_a_model_that_was_measured_on_more_cores_than_there_are_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("layer,cores_8\n0,5\n")
    with pytest.raises(ConfigError, match="model 'm' was measured on 8 cores and more; give --cores as many"):
        read_models({"m"}, Costs(), {"m": ModelSource(name="m", csv="l.csv")}, tmp_path, 4)


def test_tables_of_bundles_come_back_from_their_file_and_from_the_bundles_alike(artifacts: Path, tmp_path: Path) -> None:
    tables = collect_tables(artifacts)
    write_tables(tables, tmp_path / "t.json")
    assert read_tables(tmp_path / "t.json") == tables
    names = {str(model.name) for model in tables.models}
    from_bundles = read_models(names, Costs(bundles=str(artifacts)), {}, Path(), 2)
    from_file = read_models(names, Costs(tables="t.json"), {}, tmp_path, 2)
    assert {name: known.model for name, known in from_bundles.items()} == {name: known.model for name, known in from_file.items()}
    assert any(model.weights_bytes > 0 for model in tables.models)


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"machine": 3}')
    with pytest.raises(ConfigError, match="make the file again with scripts/collect_tables"):
        read_tables(tmp_path / "t.json")


def test_the_tables_that_come_along_hold_the_papers_networks() -> None:
    names = {model.name for model in read_tables(DATA / f"{ZOO}.json").models}
    assert names >= {"resnet50", "googlenet", "efficientnet-b0", "mobilenet-v2", "ssd-resnet34", "tiny-yolov2", "bert-large"}
