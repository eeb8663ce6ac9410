"""Makes tests/golden/chat_templates.json: what transformers' apply_chat_template gives for chats under several templates.

    python make_chat_templates.py SMOLLM2_FOLDER        (transformers 5.17)
"""
import json
import pathlib
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TEMPLATES = {
    "smollm2": (pathlib.Path(sys.argv[1]) / "chat_template.jinja").read_text(),
    # Llama 3: BOS, header, trimmed content, end of turn.
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
              "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
              "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
              "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    # Mistral 7B Instruct v0.3's shape: the system message goes into the last user turn.
    "mistral": "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n"
               "    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n"
               "{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message['role'] == 'user' %}\n"
               "        {%- if loop.last and system_message is defined %}\n"
               "            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}\n        {%- else %}\n"
               "            {{- '[INST] ' + message['content'] + '[/INST]' }}\n        {%- endif %}\n"
               "    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token }}\n"
               "    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported') }}\n"
               "    {%- endif %}\n{%- endfor %}\n",
    # Llama 2's shape: [INST] as text, system in the first user turn, content trimmed, BOS before each turn.
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
              "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
              "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
              "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
              "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
              "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
              "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
              "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    # Gemma's shape: no system role, "model" for the assistant.
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
             "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
             "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
             "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    # A template that shows the reasoning of the last answer only, as reasoning models' do: its prefixes do not nest.
    "thinking": "{% for message in messages %}{% if message['role'] == 'assistant' and not loop.last %}{{ '<|im_start|>assistant\n' "
                "+ message['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + message['role'] + '\n' + "
                "message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
                "{{ '<|im_start|>assistant\n' }}{% endif %}",
}
SYSTEM, U1, A1 = ("system", "Be brief."), ("user", "What is a pipe?"), ("assistant", "A stream between two programs.")
U2, A2 = ("user", "  And a <b>socket</b>?\n"), ("assistant", "An end point: host & port \"x\" 🚀")
CHATS = [[U1], [U1, A1], [U1, A1, U2], [U1, A1, U2, A2], [SYSTEM, U1], [SYSTEM, U1, A1], [SYSTEM, U1, A1, U2, A2],
         [("user", "Think."), ("assistant", "<think>hm</think>Yes."), U2, A2]]

base = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>")
cases = []
for name, source in TEMPLATES.items():
    for chat in CHATS:
        messages = [{"role": r, "content": c} for r, c in chat]
        for prompt in (False, True):
            try:
                text = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=prompt)
            except Exception:
                continue  # the template refuses this chat
            cases.append({"template": name, "messages": chat, "add_generation_prompt": prompt, "text": text})
out = pathlib.Path(__file__).parent / "chat_templates.json"
lines = ",\n".join(json.dumps(c) for c in cases)
out.write_text(f'{{"templates": {json.dumps(TEMPLATES)},\n"cases": [\n{lines}\n]}}\n')
