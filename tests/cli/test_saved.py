import pytest
import torch
from recorded import short_run, written

from vibnet.cli.saved import networks
from vibnet.errors import ArtefactError, ConfigError
from vibnet.report import read
from vibnet.report.record import finished


def test_the_networks_of_a_recipe_are_rebuilt_without_its_data(tmp_path):
    recorded = finished(short_run(tmp_path / "run")[0])
    before = torch.get_rng_state()
    found = networks(recorded)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.example.shape == (2, 1, 8, 8)
    dense, small = (sum(p.numel() for p in m.parameters()) for m in (found.dense, found.small))
    assert dense == recorded.run["before"]["parameters"]
    assert small == recorded.run["after"]["parameters"]
    assert networks(recorded, shape="5,64").example.shape == (5, 64)


def test_nothing_that_a_folder_names_is_imported(tmp_path):
    notes = {"model": "os:getcwd"}
    with pytest.raises(
        ConfigError, match=r"Give --model\. The run was made with --model os:getcwd"
    ):
        networks(read(written(tmp_path, notes=notes, name="digits-mlp")))


def test_an_unknown_name_needs_a_model_and_an_example(tmp_path):
    recorded = read(written(tmp_path))
    with pytest.raises(ConfigError, match="is not the run of a recipe"):
        networks(recorded)
    with pytest.raises(ConfigError, match="give --data or --example: it is not known"):
        networks(recorded, model="torch.nn:Identity")
    with pytest.raises(ConfigError, match="not both"):
        networks(recorded, model="torch.nn:Identity", data="m:D", shape="1,2")


def test_another_network_is_refused(tmp_path):
    recorded = finished(short_run(tmp_path / "run")[0])
    with pytest.raises(ArtefactError, match="was cut from another model"):
        networks(recorded, model="torch.nn:Identity")
