"""transformers folders: the model with its weights, its inputs, and what is wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from torch2mlx.errors import InputError
from torch2mlx.source import load
from torch2mlx.source.huggingface import TASKS
from torch2mlx.source.loaded import RANDOM_WEIGHTS

# transformers looks for torchvision when it is imported
pytestmark = [
    pytest.mark.usefixtures("torchvision_models"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
SEQ2SEQ = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}
BERT = {"model_type": "bert", "vocab_size": 40, **SMALL}
VIT = {"model_type": "vit", "image_size": 32, "patch_size": 8, **SMALL}
TOKENS = "input_ids: int64 [2, 16]; attention_mask: int64 [2, 16]"
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "bert": (BERT, "BertModel", TOKENS),
    "llama": (
        {"model_type": "llama", "vocab_size": 40, **SMALL},
        "LlamaForCausalLM",
        TOKENS,
    ),
    "t5": (
        {
            "model_type": "t5",
            "vocab_size": 40,
            "d_model": 8,
            "d_kv": 4,
            "d_ff": 8,
            "num_layers": 1,
            "num_heads": 2,
        },
        "T5ForConditionalGeneration",
        f"{TOKENS}; decoder_input_ids: int64 [2, 16]",
    ),
    "bart": (
        {"model_type": "bart", "vocab_size": 40, "pad_token_id": 1, **SEQ2SEQ},
        "BartModel",
        f"{TOKENS}; decoder_input_ids: int64 [2, 16]",
    ),
    "vit": (VIT, "ViTModel", "pixel_values: float32 [2, 3, 32, 32]"),
    "clip": (
        {
            "model_type": "clip",
            "projection_dim": 8,
            "text_config": {"vocab_size": 40, **SMALL},
            "vision_config": {"image_size": 24, "patch_size": 8, **SMALL},
        },
        "CLIPModel",
        f"{TOKENS}; pixel_values: float32 [2, 3, 24, 24]",
    ),
    "llava": (
        {
            "model_type": "llava",
            "image_seq_length": 9,
            "image_token_index": 39,
            "text_config": {"model_type": "llama", "vocab_size": 40, **SMALL},
            "vision_config": {
                "model_type": "clip_vision_model",
                "image_size": 24,
                "patch_size": 8,
                **SMALL,
                "num_hidden_layers": 2,
            },
        },
        "LlavaForConditionalGeneration",
        "input_ids: int64 [2, 25]; attention_mask: int64 [2, 25]; "
        "pixel_values: float32 [2, 3, 24, 24]",
    ),
    "videomae": (
        {
            "model_type": "videomae",
            "image_size": 32,
            "patch_size": 16,
            "num_frames": 4,
            **SMALL,
        },
        "VideoMAEModel",
        "pixel_values: float32 [2, 4, 3, 32, 32]",
    ),
    "whisper": (
        {
            "model_type": "whisper",
            "vocab_size": 40,
            "num_mel_bins": 10,
            "max_source_positions": 12,
            "pad_token_id": 0,
            **SEQ2SEQ,
        },
        "WhisperModel",
        "input_features: float32 [2, 10, 24]; decoder_input_ids: int64 [2, 16]",
    ),
    "wav2vec2": (
        {
            "model_type": "wav2vec2",
            "vocab_size": 40,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            **SMALL,
        },
        "Wav2Vec2Model",
        "input_values: float32 [2, 16000]",
    ),
    "spectrograms": (
        {
            "model_type": "audio-spectrogram-transformer",
            "max_length": 32,
            "num_mel_bins": 16,
            **SMALL,
        },
        "ASTModel",
        "input_values: float32 [2, 32, 16]",
    ),
}


def write(folder: Path, config: dict[str, Any], *architectures: str) -> Path:
    folder.mkdir(exist_ok=True)
    full = config | ({"architectures": list(architectures)} if architectures else {})
    (folder / "config.json").write_text(json.dumps(full))
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A small BERT with its weights."""
    folder = write(tmp_path / "tiny-bert", BERT, "BertModel")
    load(f"hf:{folder}").model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_inputs(tmp_path: Path, case: str):
    config, architecture, inputs = CASES[case]
    source = load(f"hf:{write(tmp_path / case, config, architecture)}")
    assert type(source.model).__name__ == architecture
    assert not source.model.training
    assert source.name == case
    assert source.args == ()
    assert source.description == f"{inputs}, as the model's configuration says"
    assert source.notes == (RANDOM_WEIGHTS,)
    with torch.no_grad():
        out = source.model(**source.kwargs)
    # A cache is no tensor, and no output that a whole sequence needs
    assert "past_key_values" not in out


def test_tokens_are_ordinary_words(tmp_path: Path):
    """None stands for padding or for an image, but for those at the beginning that shall."""
    for case, special, count in (("bart", 1, 0), ("llava", 39, 9)):
        config, architecture, _ = CASES[case]
        source = load(f"hf:{write(tmp_path / case, config, architecture)}")
        found = source.kwargs["input_ids"] == special
        assert found.sum() == 2 * count
        assert found[:, :count].all()


@pytest.mark.parametrize(("size", "chosen"), [(16, "grouped_mm"), (14, "batched_mm")])
def test_experts(tmp_path: Path, size: int, chosen: str):
    """Products of groups want rows of whole 16 bytes."""
    config = {
        "model_type": "mixtral",
        "vocab_size": 40,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        **SMALL,
        "intermediate_size": size,
    }
    source = load(f"hf:{write(tmp_path / 'mixtral', config, 'MixtralForCausalLM')}")
    assert source.model.config._experts_implementation == chosen
    with torch.no_grad():
        source.model(**source.kwargs)


def test_inputs_that_nothing_tells(tmp_path: Path):
    """One that is required, and that no configuration describes."""
    config = {
        "model_type": "time_series_transformer",
        "prediction_length": 4,
        "d_model": 8,
    }
    folder = write(tmp_path / "series", config, "TimeSeriesTransformerModel")
    with pytest.raises(
        InputError, match=r"^cannot infer the inputs of TimeSeriesTransformerModel; "
    ):
        load(f"hf:{folder}")


def test_half_precision(tmp_path: Path):
    folder = write(tmp_path / "vit", VIT, "ViTModel")
    load(f"hf:{folder}").model.bfloat16().save_pretrained(folder)
    source = load(f"hf:{folder}")
    assert next(source.model.parameters()).dtype is torch.bfloat16
    assert source.kwargs["pixel_values"].dtype is torch.bfloat16


def test_weights_come_from_the_folder(bert: Path, capfd):
    from safetensors.torch import load_file

    capfd.readouterr()
    source = load(f"hf:{bert}")
    assert capfd.readouterr() == ("", "")
    saved = load_file(bert / "model.safetensors")
    state = source.model.state_dict()
    assert source.notes == ()
    assert all(torch.equal(state[key], saved[key]) for key in saved)


def test_missing_weights_are_told(bert: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(bert / "model.safetensors")
    del weights["pooler.dense.weight"], weights["pooler.dense.bias"]
    save_file(weights, bert / "model.safetensors", {"format": "pt"})
    assert load(f"hf:{bert}").notes == (
        f"2 weights are not in {bert} and have random values: pooler.dense.bias, "
        "pooler.dense.weight",
    )


def test_companions_go_along(bert: Path):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md"):
        (bert / name).write_text("{}")
    assert load(f"hf:{bert}").files == {
        name: bert / name
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    }


def test_task_chooses_the_head(bert: Path):
    model = load(f"hf:{bert}", task="text-classification").model
    assert type(model).__name__ == "BertForSequenceClassification"


def test_architecture_is_not_named(tmp_path: Path):
    model = load(f"hf:{write(tmp_path / 'bert', BERT)}").model
    assert type(model).__name__ == "BertModel"


def test_given_inputs(bert: Path):
    source = load(f"hf:{bert}", ["input_ids=int64[3,100]"])
    assert set(source.kwargs) == {"input_ids"}
    assert 30 < int(source.kwargs["input_ids"].max()) < 40


def test_pickled_weights(bert: Path):
    torch.save(load(f"hf:{bert}").model.state_dict(), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        load(f"hf:{bert}")
    assert str(caught.value) == (
        f"hf:{bert}: its weights are pickled (pytorch_model.bin), and unpickling can run "
        "code; pass --trust-pickle if you trust where they come from"
    )
    assert load(f"hf:{bert}", trust_pickle=True).notes == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "{folder} holds no config.json"),
        ("{", "{folder}/config.json cannot be read: Expecting property name"),
        ("[]", "{folder}/config.json is not a JSON object"),
        (
            '{"architectures": ["MyOwnModel"]}',
            "transformers {version} has no class 'MyOwnModel', which "
            "{folder}/config.json names",
        ),
        (
            '{"model_type": "no_such_type"}',
            "transformers cannot load it: ValueError: ",
        ),
    ],
)
def test_bad_folder(tmp_path: Path, content: str | None, why: str):
    import transformers

    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load(f"hf:{tmp_path}")
    text = str(caught.value)
    expected = why.format(folder=tmp_path, version=transformers.__version__)
    assert text.startswith(f"hf:{tmp_path}: {expected}")
    assert "\n" not in text


def test_damaged_weights(bert: Path):
    (bert / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        InputError, match="model.safetensors is not a valid safetensors file: 7 bytes"
    ) as caught:
        load(f"hf:{bert}")
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load("hf:google-bert/bert-base-uncased")
    assert str(caught.value) == (
        "hf:google-bert/bert-base-uncased: there is no folder "
        "google-bert/bert-base-uncased; hf: takes a local folder with a config.json, "
        "nothing is downloaded"
    )


def test_unknown_task(bert: Path):
    with pytest.raises(InputError) as caught:
        load(f"hf:{bert}", task="chat")
    assert str(caught.value) == f"unknown task 'chat'; it is one of {', '.join(TASKS)}"


def test_every_task_exists():
    import transformers

    assert all(hasattr(transformers, name) for name in TASKS.values())


LLAMA = {
    "model_type": "llama",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}


@pytest.mark.parametrize(
    ("dtype", "architecture", "names_match"),
    [
        (torch.float32, "LlamaForCausalLM", True),
        (torch.bfloat16, "LlamaForCausalLM", True),
        (torch.float32, "LlamaModel", False),
    ],
)
def test_weights_are_mapped_not_copied(
    tmp_path: Path, dtype: torch.dtype, architecture: str, names_match: bool
):
    """Each as transformers has it, buffers too, and in the file's own memory."""
    import transformers

    folder = write(tmp_path / "llama", LLAMA, "LlamaForCausalLM")
    load(f"hf:{folder}").model.to(dtype).save_pretrained(folder)
    before = (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [architecture]
    (folder / "config.json").write_text(json.dumps(config))
    source = load(f"hf:{folder}")
    assert source.checkpoint == folder
    assert ("conversion" not in source.options) == names_match
    theirs = getattr(transformers, architecture).from_pretrained(folder)
    wanted = dict(theirs.named_buffers()) | theirs.state_dict()
    found = dict(source.model.named_buffers()) | source.model.state_dict()
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)
    with torch.no_grad():
        next(source.model.parameters()).zero_()
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("case", ["vit", "llava", "t5"])
def test_weights_under_other_names_are_mapped_too(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
):
    """What transformers renames while it loads; and bfloat16, where float16 would be widened in part."""
    import transformers

    config, architecture, _ = CASES[case]
    folder = write(tmp_path / case, config, architecture)
    load(f"hf:{folder}").model.bfloat16().save_pretrained(folder)
    cls = getattr(transformers, architecture)
    theirs = cls.from_pretrained(folder)
    monkeypatch.setattr(cls, "from_pretrained", None)
    source = load(f"hf:{folder}")
    assert source.checkpoint == folder
    assert ("conversion" not in source.options) == (case == "t5")
    wanted = dict(theirs.named_buffers()) | theirs.state_dict()
    found = dict(source.model.named_buffers()) | source.model.state_dict()
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)
