"""The whole house once: a real model in the engine's process, a real learner in its own, a new version served."""

from pathlib import Path
from typing import Any

import httpx
import torch
from server_house import MODEL, TOKENIZER, eventually
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.config import load_config
from server.runtime import Runtime

NUM_TURNS = 4


def tiny_model(folder: Path) -> Path:
    """A random Qwen3 of a few thousand parameters with nano's tokenizer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=TOKENIZER.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=TOKENIZER.token_to_id("<|im_end|>"),
        pad_token_id=TOKENIZER.token_to_id("<|endoftext|>"),
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for path in MODEL.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


async def test_what_users_say_is_served_as_a_new_version_while_requests_go_on(tmp_path: Path) -> None:
    config = load_config(
        model=str(tiny_model(tmp_path / "model")),
        name="tiny",
        run_dir=str(tmp_path / "run"),
        server__port=0,
        engine__precision="fp32",
        engine__max_len=512,
        learn__precision="fp32",
        learn__overrides={"batch.turns_per_step": NUM_TURNS},
    )
    async with (
        Runtime(config) as runtime,
        httpx.AsyncClient(base_url=runtime.base_url, timeout=60) as http,
    ):

        async def ask() -> httpx.Response:
            body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
            return await http.post("/v1/chat/completions", json=body)

        for _ in range(NUM_TURNS):
            turn_id = (await ask()).headers["X-Turn-Id"]
            said = {"turn_id": turn_id, "text": "Say it in one word.", "reward": -1, "end_session": True}
            assert (await http.post("/v1/feedback", json=said)).status_code == 200

        async def learned() -> Any:
            reply = await ask()
            assert reply.status_code == 200
            return reply if reply.headers["X-Policy-Version"] != "0" else None

        reply = await eventually(learned, timeout_s=90)
        turn = await runtime.log.turn(reply.headers["X-Turn-Id"])
        status = (await http.get("/v1/status")).json()
        assert turn is not None
        assert turn.completion.version == int(reply.headers["X-Policy-Version"])
        assert status["account"]["trained"] == NUM_TURNS
        assert status["learner"] == {"state": "running", "num_crashes": 0}
