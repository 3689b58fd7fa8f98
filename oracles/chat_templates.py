"""What transformers' `apply_chat_template` makes of seven templates, nine conversations, with and without
a generation prompt.

Writes crates/model/tests/fixtures/chat_templates.json: `special` (the tokens that templates see by name),
`templates`, `conversations`, and `cases` with the `text`, or the `error` a template raises. The templates are
written for this file; each uses the constructs of the family of models after which it is named.
"""

import argparse
from pathlib import Path

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from common import REPOSITORY, write_json

SPECIAL = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}

TEMPLATES = {
    # A default system line before the first turn, one loop, no whitespace control.
    "smollm": """\
{% for turn in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|turn|>system
Answer briefly.<|done|>
' }}{% endif %}{{ '<|turn|>' + turn['role'] + '
' + turn['content'] + '<|done|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant
' }}{% endif %}""",
    # Tools or a system line, dashes around every block, escaped line breaks, calls written as JSON.
    "qwen2.5": """\
{%- if tools %}
    {{- '<|turn|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|done|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|turn|>system\\n' + messages[0]['content'] + '<|done|>\\n' }}
    {%- else %}
        {{- '<|turn|>system\\nYou answer questions.<|done|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|turn|>' + message.role + '\\n' + message.content + '<|done|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|turn|>' + message.role }}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\\n{"name": "' + call.name + '", "arguments": ' + call.arguments | tojson + '}' }}
        {%- endfor %}
        {{- '<|done|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|turn|>user' }}
        {%- endif %}
        {{- '\\n<result>\\n' ~ message.content ~ '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|done|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn|>assistant\\n' }}
{%- endif %}
""",
    # A namespace, messages from the end, thoughts cut off earlier answers with Python's string methods.
    "qwen3": """\
{%- set ns = namespace(searching=true, last_question=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_question = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role in ["user", "system"] %}
        {{- '<|turn|>' + message.role + '\\n' + content + '<|done|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_question and (loop.last or (not loop.last and thought)) %}
            {{- '<|turn|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|turn|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|done|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # BOS in the text, a default date, the rest of a list, trimmed contents.
    "llama3": """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is not defined %}
        {%- set date_string = "26 Jul 2024" %}
    {%- else %}
        {%- set date_string = "01 " + "Jan" ~ ' ' ~ 2025 %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system line may be missing. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|head_end|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools: " + tools|tojson(indent=4) }}
{%- endif %}
{{- "Today is " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|over|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|head_end|>\\n\\n' + message['content'] | trim + '<|over|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|head_end|>\\n\\n' }}
{%- endif %}
""",
    # Roles that must alternate, the system line inside the first question, EOS after every answer.
    "mistral": """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After an optional system message, roles must alternate: user, assistant, user, ...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [Q] " + system_message + "\\n\\n" + message["content"] + " [/Q]" }}
        {%- else %}
            {{- " [Q] " + message["content"] + " [/Q]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, not " + message["role"] + "!") }}
    {%- endif %}
{%- endfor %}
""",
    # Blocks on lines of their own without dashes: the text depends on trim_blocks and lstrip_blocks.
    "zephyr": """\
{% for message in messages %}
    {% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
    {% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
    {% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
    {% endif %}
    {% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
    {% endif %}
{% endfor %}
""",
    # Macros, generation blocks, loop controls, filters, dictionary methods, neighbours in a loop.
    "constructs": """\
{%- macro head(role, mark='#') -%}
    {{ mark * 2 }} {{ role | capitalize | replace('User', 'Human') }} {{ caller is defined }}
{%- endmacro %}
{%- set names = {'user': 'U', 'assistant': 'A'} %}
{%- for message in messages if message.content %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- if loop.index > 5 %}{{ '(cut)' }}{% break %}{% endif %}
    {{ head(message.role) }} {{ names.get(message.role, '?') }} {{ message.get('name', 'nobody') }} {{ loop.previtem.role if loop.previtem is defined else 'first' }}
    {% if message.role == 'assistant' %}
        {%- generation %}
        {%- set inner = message.content | trim | upper %}
        {{- inner ~ eos_token }}
        {%- endgeneration %}
    {% else %}
        {%- set lines = message.content.strip().splitlines() %}
{{ lines | join(' / ') }}|{{ lines | length }}|{{ message.content | tojson }}|{{ message.content[:3] }}
    {% endif %}
{%- else %}
nothing said
{%- endfor %}
{{ messages | map(attribute='role') | unique | list | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{% for key, value in names.items() %}{{ key }}={{ value }}{{ ', ' if not loop.last }}{% endfor %}
{%- for key, value in names | dictsort(reverse=true) %} {{ loop.revindex }}{{ key[0] }}{{ value.lower() }}{% endfor %}
{% filter upper %}{{ none }} {{ true and not false }} {{ 7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ [1, 'a'] }} {{ undefined_name }}{% endfilter %}
{% if add_generation_prompt %}{{ '%s>' | format('A') }}{% endif %}

""",
}

USER = {"role": "user", "content": "Which is the longest river?"}
ANSWER = {"role": "assistant", "content": "The Nile."}
SYSTEM = {"role": "system", "content": "  Be exact.\n"}

CONVERSATIONS = {
    "question": [USER],
    "system and question": [SYSTEM, USER],
    "answered": [USER, ANSWER],
    "several turns": [SYSTEM, USER, ANSWER, {"role": "user", "content": "And the widest?"},
                      {"role": "assistant", "content": "The Amazon."}, {"role": "user", "content": "Why?"}],
    "two questions in a row": [USER, USER],
    "whitespace, unicode, markup": [{"role": "user", "content": "\n\tÄ \"quoted\" <b>&amp;</b> 'x'\n\n 日本 😀 {{ 1 }} {% x %}  "}],
    "thoughts": [USER, {"role": "assistant", "content": "<think>\nLong rivers.\n</think>\n\nThe Nile."},
                 {"role": "user", "content": "<result>7</result>"},
                 {"role": "assistant", "content": "<think>\n\n</think>\n\n7."}],
    "empty content": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "unknown role": [{"role": "critic", "content": "Hm."}, {"role": "user", "content": "What?"}],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "crates/model/tests/fixtures/chat_templates.json")
    out = parser.parse_args().out
    vocabulary = {token: index for index, token in enumerate(SPECIAL.values())}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<|end|>")), **SPECIAL)
    cases = []
    for name, template in TEMPLATES.items():
        for title, conversation in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": name, "conversation": title, "add_generation_prompt": prompt}
                try:
                    case["text"] = tokenizer.apply_chat_template(
                        conversation, chat_template=template, add_generation_prompt=prompt, tokenize=False)
                except jinja2.exceptions.TemplateError as error:
                    case["error"] = error.message
                cases.append(case)
    write_json(out, {"special": SPECIAL, "templates": TEMPLATES, "conversations": CONVERSATIONS, "cases": cases})


if __name__ == "__main__":
    main()
