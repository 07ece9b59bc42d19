# ruff: noqa: B023, B905, RUF017
"""Self-training in rounds by bare vLLM and TRL: sample, vote, fine-tune on the winners, again. Settings in, rounds out.

Runs in `.venv-rivals`, in one process: vLLM's engine core is in it too. `keep_best`: only an adapter that agrees with
the anchors as often as the best so far goes on.
"""

import json
import os
import random
import re
import sys
import time

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR",
               "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # fmt: skip
from collections import Counter

import pyarrow.parquet as pq
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

given = json.load(sys.stdin)
started, spent = time.process_time(), Counter()
llm = LLM(given["model"], dtype="float32", enforce_eager=True, enable_lora=True, max_lora_rank=8, max_loras=2,
          max_model_len=512, max_num_seqs=given["seats"], disable_log_stats=True)  # fmt: skip
base = AutoModelForCausalLM.from_pretrained(given["model"], dtype="float32")
shape = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
model, adapter, made = get_peft_model(base, shape), None, 0
pool = pq.read_table(given["pool"])["prompt"].to_pylist()
random.Random(given["seed"]).shuffle(pool)
spent["start"] += time.process_time() - started


def timed(what, work):
    before = time.process_time()
    result = work()
    spent[what] += time.process_time() - before
    return result


def say(questions, n=1, temperature=0.0):
    chats = [[{"role": "user", "content": question}] for question in questions]
    params = SamplingParams(n=n, temperature=temperature, max_tokens=given["max_tokens"], seed=None)
    lora = LoRARequest(str(made), made, adapter) if adapter else None
    return [reply.outputs for reply in llm.chat(chats, params, lora_request=lora, use_tqdm=False)]


def read(output):
    found = re.findall(given["pattern"], output.text.strip())
    return found[-1] if found and output.finish_reason == "stop" else None


def agreement(file, most):
    rows = pq.read_table(file).to_pylist()[:most]
    replies = say([row["prompt"] for row in rows])
    return sum(read(reply[0]) == str(row["answer"]) for reply, row in zip(replies, rows)) / len(rows)


def train(examples, to):
    config = SFTConfig(output_dir=to, learning_rate=given["lr"], num_train_epochs=1, lr_scheduler_type="linear",
        per_device_train_batch_size=given["batch"], warmup_steps=0.1, weight_decay=0.01, adam_beta2=0.98, use_cpu=True,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=given["seed"])  # fmt: skip
    SFTTrainer(model, args=config, train_dataset=Dataset.from_list(examples)).train()
    model.save_pretrained(to)


windows, rounds, tokens, best = [], [], 0, timed("gate", lambda: agreement(given["anchors"], given["probes"]))
for number in range(1, given["rounds"] + 1):
    asked = [pool.pop() for _ in range(given["prompts"])]
    sampled = timed("sampling", lambda: say(asked, given["n"], given["temperature"]))
    tokens += sum(len(output.token_ids) for outputs in sampled for output in outputs)
    windows.append([])
    for question, outputs in zip(asked, sampled):
        (winner, votes), *_ = Counter(map(read, outputs)).most_common(1)
        if winner is not None and votes >= given["n"] / 2:
            texts = {output.text for output in outputs if read(output) == winner}
            asked_as = [{"role": "user", "content": question}]
            said = [[{"role": "assistant", "content": text}] for text in sorted(texts)]
            windows[-1] += [{"prompt": asked_as, "completion": each} for each in said]
    folder, before = f"{given['out']}/{number}", adapter
    timed("training", lambda: train(sum(windows[-given["replay"] :], []), folder))
    adapter, made = folder, made + 1
    kept = True
    if given["keep_best"]:
        reached = timed("gate", lambda: agreement(given["anchors"], given["probes"]))
        kept, best = reached >= best, max(reached, best)
        if not kept:
            adapter = before
            base = model.unload()
            again = PeftModel.from_pretrained(base, before, is_trainable=True) if before else None
            model = again or get_peft_model(base, shape)
    accuracy = timed("report", lambda: agreement(given["test"], given["questions"]))
    costs = {f"{what}_cpu_s": seconds for what, seconds in spent.items()}
    rounds.append({"accuracy": accuracy, "tokens": tokens, "kept": kept, **costs})
    print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
print(json.dumps(rounds))
