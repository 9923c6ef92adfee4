from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM

from rlnas.errors import CheckpointError
from rlnas.supernet import Supernet, checkpoint
from rlnas.supernet.checkpoint import load_checkpoint, native_pooling, with_new_head

COMMIT = "0" * 40


def load(folder, task=None, pooling=None, **settings):
    task = tiny.make_task() if task is None else task
    return load_checkpoint(folder, task, pooling, **({"seed": 0, "trust_remote_code": False} | settings))


@pytest.fixture
def bert_folder(checkpoints, tmp_path):
    """A copy of the BERT classifier to be damaged."""
    return shutil.copytree(checkpoints["bert"], tmp_path / "bert")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# Whether the head is that of the task


def test_a_classifier_of_the_tasks_labels_counts_as_fine_tuned(checkpoints, family):
    loaded = load(checkpoints[family])
    assert loaded.fine_tuned
    stored = load_file(checkpoints[family] / "model.safetensors")
    name = "classifier.out_proj.weight" if family in ("roberta", "electra") else "classifier.weight"
    assert torch.equal(loaded.model.head.out.weight, stored[name])
    assert not loaded.model.training


def test_an_encoder_without_a_classifier_is_not_fine_tuned(tmp_path, family):
    assert not load(tiny.write_checkpoint(tmp_path, family, label_names=None)).fine_tuned


def test_a_masked_language_model_is_not_fine_tuned(tmp_path):
    tokenizer = tiny.make_tokenizer("bert")
    AutoModelForMaskedLM.from_config(tiny.make_config("bert", len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert not load(tmp_path).fine_tuned


@pytest.mark.parametrize(
    "names", [("no", "yes"), tuple(map(str, range(150))), ()], ids=["2", "150", "regression"]
)
def test_a_classifier_of_another_number_of_labels_is_replaced(checkpoints, family, names):
    loaded = load(checkpoints[family], tiny.make_task(names))
    assert not loaded.fine_tuned
    assert loaded.model.head.out.weight.shape == (max(1, len(names)), tiny.HIDDEN)
    assert loaded.model.config.problem_type == ("single_label_classification" if names else "regression")


@pytest.mark.parametrize(
    "names", [("no", "yes"), tuple(map(str, range(150))), ()], ids=["2", "150", "regression"]
)
def test_heads_of_every_width_are_kept(tmp_path, names):
    folder = tiny.write_checkpoint(tmp_path, "bert", names)
    loaded = load(folder, tiny.make_task(names))
    assert loaded.fine_tuned
    assert torch.equal(
        loaded.model.head.out.weight, load_file(folder / "model.safetensors")["classifier.weight"]
    )


def test_a_classifier_made_for_the_first_token_is_not_fine_tuned_for_the_mean(checkpoints, family):
    loaded = load(checkpoints[family], pooling="mean")
    assert not loaded.fine_tuned
    assert loaded.model.head.dense is None


def test_a_head_whose_dense_layer_is_lacking_is_not_fine_tuned(bert_folder):
    change_weights(bert_folder, lambda weights: weights.pop("bert.pooler.dense.weight"))
    assert not load(bert_folder).fine_tuned


@pytest.mark.parametrize(
    "names", [("blue", "red", "green"), ("BLUE", "Red", "green")], ids=["same", "case"]
)
def test_outputs_follow_the_tasks_order_of_labels_by_name(checkpoints, names):
    head, stored = (
        load(checkpoints["bert"], tiny.make_task(names)).model.head.out,
        load_file(checkpoints["bert"] / "model.safetensors"),
    )
    order = [2, 0, 1]  # the checkpoint says red, green, blue
    assert torch.equal(head.weight, stored["classifier.weight"][order])
    assert torch.equal(head.bias, stored["classifier.bias"][order])


@pytest.mark.parametrize(
    "names", [("LABEL_2", "LABEL_0", "other"), ("red", "RED", "Blue")], ids=["others", "ambiguous"]
)
def test_outputs_stay_in_their_order_where_names_do_not_tell(checkpoints, names):
    head = load(checkpoints["bert"], tiny.make_task(names)).model.head.out
    assert torch.equal(
        head.weight, load_file(checkpoints["bert"] / "model.safetensors")["classifier.weight"]
    )


@pytest.mark.parametrize(
    ("names", "fine_tuned"),
    [
        (("happy", "sad", "angry"), False),
        (("0", "1", "2"), True),
        (("LABEL_0", "LABEL_1", "LABEL_2"), True),
    ],
)
def test_a_head_that_was_made_for_other_labels_is_not_fine_tuned(checkpoints, names, fine_tuned, caplog):
    assert load(checkpoints["bert"], tiny.make_task(names)).fine_tuned is fine_tuned
    told = "the checkpoint's classifier tells red, green, blue apart, not happy, sad, angry"
    assert (told in caplog.text) is not fine_tuned


def test_names_that_differ_in_case_alone_are_told_apart_exactly(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, "bert", ("us", "US", "uk"))
    head = load(folder, tiny.make_task(("uk", "US", "us"))).model.head.out
    assert torch.equal(head.weight, load_file(folder / "model.safetensors")["classifier.weight"][[2, 1, 0]])


def test_without_a_task_the_labels_are_those_of_the_checkpoint(checkpoints):
    loaded = load_checkpoint(checkpoints["bert"], None, None, seed=0, trust_remote_code=False)
    assert loaded.fine_tuned
    assert loaded.model.config.id2label == dict(enumerate(tiny.LABELS))


def test_without_a_task_one_output_is_a_regression(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, "bert", ())
    loaded = load_checkpoint(folder, None, None, seed=0, trust_remote_code=False)
    assert loaded.model.config.problem_type == "regression"


# Random numbers


def test_new_heads_depend_on_the_seed_alone(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, "bert", label_names=None)
    before = torch.get_rng_state()
    heads = [load(folder, seed=seed).model.head.out.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.get_rng_state(), before)


# Pooling


def write_pooling(folder, text):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "pooling"),
    [
        ('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "mean"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', "cls"),
        ('{"pooling_mode": "mean"}', "mean"),
        ('{"pooling_mode": "cls"}', "cls"),
    ],
)
def test_pooling_is_what_the_checkpoint_was_made_for(bert_folder, text, pooling):
    assert load(bert_folder).model.config.pooling == "cls"
    write_pooling(bert_folder, text)
    assert native_pooling(str(bert_folder)) == pooling
    assert load(bert_folder).model.config.pooling == pooling
    assert load(bert_folder, pooling="cls").model.config.pooling == "cls"


@pytest.mark.parametrize("text", ['{"pooling_mode": ', '["mean"]'], ids=["cut short", "no object"])
def test_a_damaged_pooling_file_is_reported(bert_folder, text):
    write_pooling(bert_folder, text)
    with pytest.raises(
        CheckpointError, match=r"cannot read the pooling of the checkpoint from .*1_Pooling/config\.json"
    ):
        load(bert_folder)


def test_an_unknown_pooling_is_refused(checkpoints):
    with pytest.raises(CheckpointError, match="pooling must be one of cls, mean, but got pooling='max'"):
        load(checkpoints["bert"], pooling="max")


# What cannot be loaded


def test_a_name_that_is_neither_a_folder_nor_on_the_hub_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint 'nobody/no-such-model': it is not a folder"):
        load("nobody/no-such-model")
    with pytest.raises(
        CheckpointError, match=f"there is no folder '{tmp_path / 'nowhere'}'; check the path"
    ):
        load(tmp_path / "nowhere")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=f"the folder '{tmp_path}' holds no config.json; give a folder"
    ):
        load(tmp_path)


@pytest.mark.parametrize("text", ['{"model_type": "bert",', '{"hidden_size": 8}', '{"model_type": "berd"}'])
def test_a_damaged_config_is_refused(bert_folder, text):
    (bert_folder / "config.json").write_text(text)
    folder = bert_folder.rename(
        bert_folder.with_name("model")
    )  # transformers guesses from names that say bert
    with pytest.raises(CheckpointError, match=f"cannot read config.json of the checkpoint '{folder}': "):
        load(folder)


@pytest.mark.parametrize("model_type", ["gpt2", "t5", "albert"])
def test_another_family_is_refused_by_name(tmp_path, model_type):
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=f"is a '{model_type}' checkpoint, which is not a supported family"
    ):
        load(tmp_path)


@pytest.mark.parametrize("name", ["hidden_size", "dim"])
def test_heads_that_do_not_divide_are_refused(tmp_path, name):
    family = "bert" if name == "hidden_size" else "distilbert"
    tiny.make_config(family, 50).save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **{name: 30})
    with pytest.raises(
        CheckpointError,
        match="has hidden_size=30, which does not divide into num_attention_heads=4 equal heads",
    ):
        load(tmp_path)


def test_relative_positions_are_refused(bert_folder):
    change_json(bert_folder / "config.json", position_embedding_type="relative_key")
    with pytest.raises(
        CheckpointError, match="position_embedding_type='relative_key'; only 'absolute' is supported"
    ):
        load(bert_folder)


def test_a_lacking_weight_of_the_encoder_is_refused(bert_folder):
    name = "bert.encoder.layer.1.output.dense.bias"
    change_weights(bert_folder, lambda weights: weights.pop(name))
    with pytest.raises(CheckpointError, match=f"lacks the weight '{name}', so it is incomplete"):
        load(bert_folder)


def test_a_weight_of_another_shape_counts_as_lacking(bert_folder):
    name = "bert.encoder.layer.0.attention.self.query.weight"
    change_weights(bert_folder, lambda weights: weights.update({name: torch.zeros(3, 5)}))
    with pytest.raises(CheckpointError, match=f"lacks the weight '{name}'"):
        load(bert_folder)


def test_damaged_weights_are_refused(bert_folder):
    (bert_folder / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(
        CheckpointError, match=f"cannot read the weights of the checkpoint '{bert_folder}': "
    ):
        load(bert_folder)


def test_missing_weights_are_refused(bert_folder):
    (bert_folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=f"cannot read the weights of the checkpoint '{bert_folder}': "
    ):
        load(bert_folder)


def test_a_damaged_tokenizer_is_refused(bert_folder):
    (bert_folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(
        CheckpointError, match=f"cannot read the tokenizer of the checkpoint '{bert_folder}': "
    ):
        load(bert_folder)


def test_a_checkpoint_without_a_vocabulary_is_refused(tmp_path, family):
    """Transformers would make up a tokenizer to which every word is unknown."""
    folder = tiny.write_checkpoint(tmp_path, family)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        CheckpointError, match=f"the checkpoint '{folder}' holds no vocabulary; add the tokenizer"
    ):
        load(folder)


# The hub


def put_into_hub_cache(folder, name):
    """What a download leaves; there is no network here."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def test_a_hub_name_is_loaded_as_a_folder_is_pooling_included(bert_folder):
    write_pooling(bert_folder, '{"pooling_mode": "mean"}')
    put_into_hub_cache(bert_folder, "someone/tiny-mean")
    loaded, local = load("someone/tiny-mean"), load(bert_folder)
    assert loaded.model.config.pooling == local.model.config.pooling == "mean"
    weights = local.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.model.state_dict().items())


def test_a_hub_model_that_says_nothing_of_pooling_reads_its_first_token(bert_folder):
    put_into_hub_cache(bert_folder, "someone/tiny-cls")
    assert load("someone/tiny-cls").model.config.pooling == "cls"


@pytest.mark.parametrize("names", [("a", "b"), ()], ids=["classes", "values"])
def test_a_new_head_is_for_the_new_labels_and_all_else_is_kept(bert, names):
    task = tiny.make_task(names)
    model = with_new_head(bert.model, task, seed=1)
    assert model.head.out.weight.shape == (max(1, len(names)), tiny.HIDDEN)
    assert model.config.problem_type == ("single_label_classification" if names else "regression")
    old = dict(bert.model.named_parameters())
    same = {
        name: torch.equal(p, old[name]) for name, p in model.named_parameters() if "head.out" not in name
    }
    assert all(same.values())
    assert torch.equal(model.head.out.weight, with_new_head(bert.model, task, seed=1).head.out.weight)
    assert not torch.equal(model.head.out.weight, with_new_head(bert.model, task, seed=2).head.out.weight)
    assert not model.training


def test_a_misspelt_folder_is_met_by_a_hint(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "rlnas")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    task = tiny.learnable_task()
    with pytest.raises(CheckpointError, match=r"no checkpoint 'runs/dem': .*; did you mean 'runs/demo'"):
        Supernet.from_pretrained("runs/dem", task)  # which may be a name of the hub
    assert "no folder 'runs/dem' here: asking the hub for it" in caplog.messages

    def ask(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(checkpoint.AutoConfig, "from_pretrained", ask)
    for name in ("runs/demo/bset", "/" + 300 * "x"):
        with pytest.raises(CheckpointError, match=f"there is no folder '{name}'; check the path"):
            Supernet.from_pretrained(name, task)
    with pytest.raises(
        CheckpointError, match=r"there is no folder '\./runs/dem'; did you mean 'runs/demo'"
    ):
        Supernet.from_pretrained("./runs/dem", task)
