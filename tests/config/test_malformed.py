"""Every way to get a configuration wrong that anybody thought of: refused, with file, path and remedy."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.build import build
from tidegate.config.courier import load as load_courier
from tidegate.config.load import FILE_BYTES_MAX, load, load_unreached, parse, policy_tables
from tidegate.config.problem import ConfigError, Problem
from tidegate.sim.scenario import load as load_scenario

HOME = "[site.home]\nlocal = true\n"
CLOUD = "[site.cloud]\nlocal = false\n"
MINE = '[endpoint.mine]\nsite = "home"\nengine = "llamacpp"\nurl = "http://127.0.0.1:8080"\nserves = ["m"]\n'
GOOD = HOME + CLOUD + MINE
THEIRS = (
    '[endpoint.theirs]\nsite = "cloud"\nengine = "openai"\nurl = "https://api.example.com/v1"\nserves = ["m"]\n'
    "context_tokens = 8192\n"
)
PRICE = "price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2 }\n"
FREE = "price = 'free'\n"
OPENAI = GOOD + THEIRS.replace("example", "openai")
TIER = "{ above_tokens = 9, usd_per_1m_input_tokens = 2, usd_per_1m_output_tokens = 4 }"
FROM = ", from = "


def tiers(*tables: str) -> str:
    return PRICE.replace("}", f", tiers = [{', '.join(tables)}] }}")


def dated(*starts: str) -> str:
    one = "{ usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2"
    return f"price = [{', '.join(one + start + ' }' for start in starts)}]\n"


VARIABLES = {"KEY": "sk-verysecret", "EMPTY": " ", "TORN": "sk-very\nsecret"}


def problems_of(folder: Path, text: str) -> list[Problem]:
    file = folder / "tidegate.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, VARIABLES)
    for problem in caught.value.problems:
        assert problem.file == str(file)
        assert problem.message
        assert problem.remedy
        assert "verysecret" not in str(problem)
    return caught.value.problems


GROUP = GOOD + "[model.chat]\nendpoints = { mine = 'identical' }\n"

# What is written, where the problem is, what is said about it, and what of the remedy.
MALFORMED = [
    # models
    (GOOD + "[model.chat]\n", "model.chat", "`endpoints` is missing", "table of names"),
    (GOOD + "[model.chat]\nendpoints = {}\n", "model.chat.endpoints", "at least one", "by name"),
    (GROUP.replace("mine = 'i", "mein = 'i"), "model.chat.endpoints", "no endpoint `mein`", "`mine`"),
    (GROUP.replace("'identical'", "'same'"), "model.chat.endpoints", '"identical", "same_family"', "by name"),
    (GROUP.replace("identical", "substitute"), "model.chat.likeness", "every request would be refused", "allow less"),
    (GROUP + "likeness = 'alike'\n", "model.chat.likeness", 'not one of "identical"', ""),
    (GROUP.replace('serves = ["m"]', "") + "likenes = 'identical'\n", "model.chat.likenes", "no such", "`likeness`"),
    (GROUP + "aliases = ['m']\n", "model.chat.aliases", "served by endpoint `mine`", "another name"),
    (GROUP + "aliases = ['chat']\n", "model.chat.aliases", "taken by [model.chat]", "one thing"),
    (GROUP + "aliases = ['a', 'a']\n", "model.chat.aliases", "taken by an alias of model.chat", "one thing"),
    (GROUP + "aliases = ['na\u00efve']\n", "model.chat.aliases", "ASCII", "as clients send it"),
    (GROUP.replace("model.chat", "model.m"), "endpoint.mine.serves", "table of its own", "with its likeness"),
    (
        GROUP + THEIRS.replace('serves = ["m"]', 'model = "chat"') + FREE,
        "endpoint.theirs.model",
        "a table of its own, model.chat, which does not list this endpoint",
        "list the endpoint there",
    ),
    (
        GROUP + "aliases = ['big']\n" + THEIRS.replace('serves = ["m"]', 'model = "big"') + FREE,
        "model.chat.aliases",
        "served by endpoint `theirs`",
        "another name",
    ),
    (
        GROUP + "fingerprint = { weights = 'a' }\n[endpoint.mine.fingerprint]\nweights = 'b'\n",
        "model.chat.fingerprint.weights",
        "endpoint `mine` is called identical, and its own fingerprint says otherwise",
        "make endpoint.mine.fingerprint.weights agree, or call it same_family here",
    ),
    (GROUP + "fingerprint = { weight = 'a' }\n", "model.chat.fingerprint.weight", "no such setting", "`weights`"),
    (
        GROUP + f"fingerprint = {{ weights = '{'a' * 257}' }}\n",
        "model.chat.fingerprint.weights",
        "at most 256",
        "Which",
    ),
    # the file's structure
    (GOOD + "[gatewy]\n", "gatewy", "no such table", "`gateway`"),
    ("gateway = 3\n" + GOOD, "gateway", "not a table", "[gateway]"),
    ("class = 3\n" + GOOD, "class", "not a table", "[class.NAME]"),
    (HOME + "endpoint = []\n", "site.home.endpoint", "no such setting", "known are: `local`"),
    (GOOD + "[[gateway]]\n", "gateway", "not a table", "[gateway]"),
    ("site.home = 7\n" + MINE, "site.home", "not a table", "[site.home]"),
    (HOME, "endpoint", "there is none", "[endpoint.NAME]"),
    (GOOD + "[endpoint.a.b]\n", "endpoint.a.b", "no such setting", ""),
    (GOOD + "[endpoint.mine.hardwar]\nurl = 'x'\n", "endpoint.mine.hardwar", "no such setting", "`hardware`"),
    (GOOD + "[endpoint.mine.foo]\nx = 1\n", "endpoint.mine.foo", "no such setting", "known are"),
    (GROUP.replace("chat", "llama3.2"), "model.llama3.2", "no such setting", '[model."llama3.2"]'),
    (GROUP + GROUP[len(GOOD) :].replace("chat", "chat.1"), "model.chat.1", "no such setting", '[model."chat.1"]'),
    (GROUP.replace("chat", "a.b.c"), "model.a.b", "no such setting", 'a name with a dot is quoted: [model."a.b.c"]'),
    (GOOD + MINE.replace("mine", "gpt-4.1"), "endpoint.gpt-4.1", "no such setting", '[endpoint."gpt-4.1"]'),
    (
        GOOD + MINE.replace("mine", "gpt-4.1") + MINE.replace("mine", "gpt-4.5"),
        "endpoint.gpt-4.5",
        "no such setting",
        '[endpoint."gpt-4.5"]',
    ),
    (GOOD + "[class.a.b]\nworth_usd = 1\n", "class.a.b", "no such setting", '[class."a.b"]'),
    # names
    (GOOD + "[site.local]\nlocal = true\n", "site.local", "already has a meaning", "another name"),
    (GOOD + "[site.anywhere]\nlocal = false\n", "site.anywhere", "already has a meaning", "another name"),
    (GOOD + "[site.Home]\nlocal = true\n", "site.Home", "metric label", "lower-case"),
    (GOOD + '[class."a b"]\n', 'class."a b"', "metric label", "lower-case"),
    (GOOD + MINE.replace("mine", "m" * 65), f"endpoint.{'m' * 65}", "metric label", "64 at most"),
    (GOOD + '[endpoint."é"]\n', 'endpoint."\\u00e9"', "metric label", "lower-case"),
    # types and bounds
    ("[gateway]\nlisten = 8400\n" + GOOD, "gateway.listen", "8400 is not text", "host:port"),
    ("[gateway]\ndrain_s = -1\n" + GOOD, "gateway.drain_s", "-1 is not a number from 0 to 3600", "shutdown"),
    ("[gateway]\ndrain_s = nan\n" + GOOD, "gateway.drain_s", "nan is not a number", "shutdown"),
    ("[gateway]\ndrain_s = inf\n" + GOOD, "gateway.drain_s", "inf is not a number", "shutdown"),
    ("[gateway]\nbody_mib_max = true\n" + GOOD, "gateway.body_mib_max", "true is not a whole number", "Size"),
    ("[gateway]\nbody_mib_max = 1.5\n" + GOOD, "gateway.body_mib_max", "1.5 is not a whole number", "Size"),
    ("[gateway]\nlog = ''\n" + GOOD, "gateway.log", "empty text is not text", "stderr"),
    ("[gateway]\nlog = 1979-05-27\n" + GOOD, "gateway.log", "is not text", "stderr"),
    ("[policy]\nquantile = 1.0\n" + GOOD, "policy.quantile", "1 is not a number from 0.6 to 0.999", "Nine in ten"),
    ("[policy]\nquantile = 0.5\n" + GOOD, "policy.quantile", "0.5 is not a number from 0.6 to 0.999", "Nine in ten"),
    ("[policy]\nseed = 99999999999999999999\n" + GOOD, "policy.seed", "is not a whole number", "random"),
    ("[policy]\nrecheck_s = 1\n" + GOOD, "policy.recheck_s", "no such setting", "`recheck_ms`"),
    ("[policy]\n" + "x" * 5000 + " = 1\n" + GOOD, "policy." + "x" * 5000, "no such setting", "known are"),
    (GOOD + 'capabilities = ["embedding"]\nwarm_up = true\n', "endpoint.mine.warm_up", "by a chat", "leave it out"),
    (
        GOOD + "warm_up = false\nkeep_loaded_usd_per_hour = 0.1\n",
        "endpoint.mine.keep_loaded_usd_per_hour",
        "is not warmed up",
        "warm_up = true",
    ),
    (GOOD + "canary_s = 59\n", "endpoint.mine.canary_s", "the engine would be busy with it", "60 or more"),
    (GOOD + "canary_s = -1\n", "endpoint.mine.canary_s", "-1 is not a number from 0 to 604800", "readings"),
    (GOOD + "probe_s = 1\n", "endpoint.mine.probe_s", "1 is not a number from 2 to 3600", "probes"),
    (GOOD + "concurrency = 0\n", "endpoint.mine.concurrency", "0 is not a whole number from 1", "at once"),
    (GOOD + "context_tokens = 1\n", "endpoint.mine.context_tokens", "1 is not a whole number", "window"),
    (GOOD + "owned = 'yes'\n", "endpoint.mine.owned", "this text is not true or false", "ours alone"),
    (
        GOOD + "capabilities = ['chat', 'fly']\n",
        "endpoint.mine.capabilities",
        "number 2 of this list is not one of",
        "vision",
    ),
    (GOOD + "capabilities = []\n", "endpoint.mine.capabilities", "an empty list is not", "goes elsewhere"),
    (GOOD + "prior = { decode_tokens_per_s = 0 }\n", "endpoint.mine.prior.decode_tokens_per_s", "0 is not", "second"),
    (GOOD + "prior = { decode_tps = 9 }\n", "endpoint.mine.prior.decode_tps", "no such setting", "decode_tokens"),
    (HOME + MINE.replace("llamacpp", "tgi"), "endpoint.mine.engine", "this text is not one of", "dialect"),
    (HOME + "[endpoint.mine]\nsite = 'home'\n", "endpoint.mine", "`engine` is missing", '"llamacpp", "ollama"'),
    ("[site.home]\n" + MINE, "site.home", "`local` is missing", "true or false"),
    # references
    (HOME + MINE.replace('"home"', '"hone"'), "endpoint.mine.site", "no site `hone`", "did you mean `home`"),
    (HOME + MINE.replace('"home"', '"zzz"'), "endpoint.mine.site", "no site `zzz`", "known are: `home`"),
    (MINE, "endpoint.mine.site", "no site `home`", "[site.NAME]"),
    (GOOD + "[class.x]\nresidency = ['clod']\n", "class.x.residency", "no site `clod`", "`cloud`"),
    (GOOD + "[class.x]\nresidency = []\n", "class.x.residency", "an empty list is not", "hard rule"),
    (GOOD + "[class.x]\nresidency = 'local'\n", "class.x.residency", "this text is not a list", "hard rule"),
    (GOOD + "[class.x]\nresidency = ['anywhere', 'local']\n", "class.x.residency", "meaningless", "either"),
    (GOOD + "[class.x]\nresidency = ['cloud']\n", "class.x.residency", "every request would be refused", "allow"),
    (HOME + MINE.replace('serves = ["m"]\n', ""), "endpoint.mine.serves", "serves nothing", "serves = "),
    (HOME + MINE.replace('"m"', '"m\\n"'), "endpoint.mine.serves", "one line", "engine shows"),
    # promises
    (GOOD + "[class.x]\nslo = {}\n", "class.x.slo", "promises nothing", "e2e_ms"),
    (GOOD + "[class.x]\nslo = { ttft_s = 2 }\n", "class.x.slo.ttft_s", "no such setting", "`ttft_ms`"),
    (GOOD + "[class.batch]\nslo = { e2e_ms = 3600000 }\n", "class.batch.slo", "longer than a request lives", "raise"),
    (GOOD + "[class.x]\nworth_usd = -1\n", "class.x.worth_usd", "-1 is not a number from 0", "kept promise"),
    ("[policy]\nhold_s_max = 600\n" + GOOD, "policy.hold_s_max", "for its whole life", "less than"),
    # money
    (GOOD + THEIRS, "endpoint.theirs.price", "unknown is never zero", 'price = "free"'),
    (GOOD + THEIRS + "running_cost = { usd_per_hour = 1 }\n", "endpoint.theirs.price", "unknown", 'price = "free"'),
    (GOOD + THEIRS + "price = {}\n", "endpoint.theirs.price", "half of the price is missing", 'price = "free"'),
    (GOOD + THEIRS + PRICE.replace(", usd_per_1m_output_tokens = 2", ""), "endpoint.theirs.price", "half", "price"),
    (GOOD + THEIRS + "price = { free = true }\n", "endpoint.theirs.price.free", "no such setting", "known are"),
    (GOOD + THEIRS + "price = 'fre'\n", "endpoint.theirs.price", "this text is not one of", "look them up"),
    (GOOD + THEIRS + "price = []\n", "endpoint.theirs.price", "an empty list is not", "look them up"),
    (GOOD + THEIRS + "price = [1]\n", "endpoint.theirs.price", "number 1 of this list is not", "look them up"),
    (
        GOOD + THEIRS + PRICE.replace("= {", "= { usd_per_1m_cached_tokens = 3,"),
        "endpoint.theirs.price.usd_per_1m_cached_tokens",
        "cost more",
        "reading from the cache",
    ),
    (GOOD + THEIRS + PRICE.replace("1,", "-1,"), "endpoint.theirs.price.usd_per_1m_input_tokens", "-1 is", "million"),
    # money: long prompts
    (GOOD + THEIRS + tiers("{ above_tokens = 9 }"), "endpoint.theirs.price.tiers[0]", "half of the price", "vendor"),
    (GOOD + THEIRS + tiers("{ x = 1, above_tokens = 9 }"), "endpoint.theirs.price.tiers[0].x", "no such", "known are"),
    (GOOD + THEIRS + tiers(TIER, "{}"), "endpoint.theirs.price.tiers[1]", "`above_tokens` is missing", "whole number"),
    (
        GOOD + THEIRS + tiers(TIER, TIER),
        "endpoint.theirs.price.tiers[1].above_tokens",
        "not above the one before",
        "in order",
    ),
    # money: the price list
    (GOOD + THEIRS + "price = 'list'\n", "endpoint.theirs.price", "belongs to no provider", "provider ="),
    (OPENAI + "price = 'list'\n", "endpoint.theirs.price", "no name of its own", 'model = "..."'),
    (OPENAI + "model = 'gpt-4o-minx'\nprice = 'list'\n", "endpoint.theirs.price", "does not have", "`gpt-4o-mini`"),
    (OPENAI + "price = { model = 'no-such' }\n", "endpoint.theirs.price.model", "`openai` does not have", "vendor"),
    (
        OPENAI + "model = 'gpt-audio'\ncapabilities = ['chat', 'audio']\nprice = 'list'\n",
        "endpoint.theirs.price",
        "for tokens of audio",
        "write usd_per_1m_input_tokens and usd_per_1m_output_tokens as they are for audio",
    ),
    (OPENAI + "price = { provider = 'opnai' }\n", "endpoint.theirs.price.provider", "no such provider", "`openai`"),
    (
        OPENAI + "price = { provider = 'perplexity', model = 'sonar' }\n",
        "endpoint.theirs.price.model",
        "billed by the request",
        "vendor",
    ),
    (OPENAI + "price = { model = 'whisper-1' }\n", "endpoint.theirs.price", "half of the price", "vendor"),
    # money: dates
    (GOOD + THEIRS + dated(FROM + "2026-12-01"), "endpoint.theirs.price[0].from", "before that day", "remove"),
    (GOOD + THEIRS + dated("", ""), "endpoint.theirs.price[1].from", "it is missing", "first day"),
    (
        GOOD + THEIRS + dated("", FROM + "2026-12-01", FROM + "2026-12-01"),
        "endpoint.theirs.price[2].from",
        "not after the one before",
        "in order",
    ),
    (
        GOOD + THEIRS + dated("", FROM + "'soon'"),
        "endpoint.theirs.price[1].from",
        "this text is not a day, as in 2026-12-01",
        "midnight",
    ),
    (GOOD + THEIRS + PRICE.replace("}", ", from = 2026-12-01 }"), "endpoint.theirs.price.from", "before", "two tables"),
    (
        GOOD + THEIRS + dated("", FROM + "2026-12-01, usd_per_1m_cached_tokens = 5"),
        "endpoint.theirs.price[1].usd_per_1m_cached_tokens",
        "cost more",
        "reading",
    ),
    # money: power
    (GOOD + "running_cost = { watts = 300 }\n", "endpoint.mine.running_cost", "half of the power", "usd_per_kwh"),
    (GOOD + "running_cost = { usd_per_kwh = 99 }\n", "endpoint.mine.running_cost.usd_per_kwh", "99 is not", "hour"),
    (GOOD + THEIRS.replace("context_tokens = 8192\n", FREE), "endpoint.theirs.context_tokens", "missing", "vLLM"),
    # the network
    ("[gateway]\nlisten = '0.0.0.0:8400'\n" + GOOD, "gateway.listen", "other machines", "keys create"),
    ("[gateway]\nlisten = ':8400'\n" + GOOD, "gateway.listen", "other machines", "127.0.0.1:8400"),
    ("[gateway]\nlisten = '[::]:8400'\n" + GOOD, "gateway.listen", "other machines", "keys create"),
    ("[gateway]\nlisten = '::1:8400'\n" + GOOD, "gateway.listen", "brackets", "[::1]:8400"),
    ("[gateway]\nlisten = 'example.com:80'\n" + GOOD, "gateway.listen", "other machines", "keys create"),
    ("[gateway]\nadmin = '192.168.1.2:8401'\n" + GOOD, "gateway.admin", "other machines", "admin_key = {"),
    ("[gateway]\nkeys = 'none.db'\n" + GOOD, "gateway.keys", "no such file", "keys create NAME"),
    ("[gateway]\nlisten = ':8400'\nkeys = 'none.db'\n" + GOOD, "gateway.keys", "no such file", "keys create"),
    ("[gateway]\nadmin_key = 'sk-verysecret'\n" + GOOD, "gateway.admin_key", "not a table of", "Secret that the admin"),
    (f"[gateway]\nkeys = '{'n' * 300}'\n" + GOOD, "gateway.keys", "name too long", "keys create NAME"),
    ("[gateway]\nkeys = '.'\n" + GOOD, "gateway.keys", "it is a folder", "let this user read it"),
    ("[gateway]\ntls = { cert = 'tidegate.toml', key = '..' }\n" + GOOD, "gateway.tls.key", "it is a folder", "in PEM"),
    ("[gateway]\nadmin_key = {}\n" + GOOD, "gateway.admin_key", "both or neither", 'env = "VARIABLE"'),
    ("[gateway]\nadmin_key = { env = 'A', file = 'b' }\n" + GOOD, "gateway.admin_key", "both or neither", "file ="),
    ("[gateway]\nadmin_key = { env = 'NONE' }\n" + GOOD, "gateway.admin_key.env", "NONE is not set", "export NONE="),
    ("[gateway]\nadmin_key = { env = 'sk-verysecret' }\n" + GOOD, "gateway.admin_key.env", "not the name", "capitals"),
    ("[gateway]\nadmin_key = { env = 'KEY' }\n" + GOOD, "gateway.admin_key.env", "fewer than 20", "openssl rand"),
    ("[gateway]\nadmin_key = { file = 'none' }\n" + GOOD, "gateway.admin_key.file", "cannot be read", "create it"),
    ("[gateway]\ntls = {}\n" + GOOD, "gateway.tls", "`cert` is missing", "certificate in PEM"),
    ("[gateway]\ntls = { cert = 'a', key = 'tidegate.toml' }\n" + GOOD, "gateway.tls.cert", "no such file", "in PEM"),
    ("[gateway]\nlisten = '127.0.0.1'\n" + GOOD, "gateway.listen", "a port is missing", "host:port"),
    ("[gateway]\nlisten = '127.0.0.1:http'\n" + GOOD, "gateway.listen", "not a number", "host:port"),
    ("[gateway]\nlisten = '127.0.0.1:70000'\n" + GOOD, "gateway.listen", "from 0 to 65535", "host:port"),
    ("[gateway]\nadmin = 'localhost:8400'\n" + GOOD, "gateway.admin", "the clients' address", "of its own"),
    ("[gateway]\njournal_total_mib = 20\n" + GOOD, "gateway.journal_total_mib", "two segments", "32 or more"),
    ("[gateway]\nstate = 'journal'\n" + GOOD, "gateway.state", "`gateway.journal` names it", "as in learned"),
    ("[gateway]\nstate_s = 0.5\n" + GOOD, "gateway.state_s", "0.5 is not a number from 1 to 3600", "snapshots"),
    ('[gateway]\nstate = "a\\u0000b"\n' + GOOD, "gateway.state", "not the name of a file", "path"),
    ('[gateway]\njournal = "\\u0000"\n' + GOOD, "gateway.journal", "not the name of a file", "path"),
    ('[gateway]\nlog = "\\u0000"\n' + GOOD, "gateway.log", "not the name of a file", "path"),
    ('[gateway]\nkeys = "a\\u0000b"\n' + GOOD, "gateway.keys", "not the name of a file", "path"),
    # one file that is to be two
    ("[gateway]\nlog = 'tidegate.toml'\n" + GOOD, "gateway.log", "the configuration", "as in gateway.log"),
    ("[gateway]\nlog = './x/../tidegate.toml'\n" + GOOD, "gateway.log", "the configuration", "as in gateway.log"),
    ("[gateway]\nstate = 'tidegate.toml'\n" + GOOD, "gateway.state", "the configuration", "as in learned.sqlite"),
    ("[gateway]\nlog = 'learned.sqlite'\n" + GOOD, "gateway.log", "`gateway.state`", "as in gateway.log"),
    ("[gateway]\nlog = 'ledger.db'\n" + GOOD, "gateway.log", "`budget.ledger`", "as in gateway.log"),
    ("[gateway]\nlog = 'switchback.json'\n" + GOOD, "gateway.log", "`switchback.file`", "as in gateway.log"),
    ("[gateway]\nlog = 'journal'\n" + GOOD, "gateway.log", "`gateway.journal`", "as in gateway.log"),
    ("[gateway]\nstate = 'both'\n[budget]\nledger = 'both'\n" + GOOD, "budget.ledger", "`gateway.state`", "ledger.db"),
    (
        "[gateway]\nstate = 'a.json'\n[switchback]\nfile = 'a.json'\n" + GOOD,
        "switchback.file",
        "`gateway.state`",
        "json",
    ),
    (HOME + MINE.replace("http://", "ftp://"), "endpoint.mine.url", "neither with http://", "https://host/v1"),
    (HOME + MINE.replace("http://", ""), "endpoint.mine.url", "neither with http://", "https://host/v1"),
    (HOME + MINE.replace("127.0.0.1:8080", ""), "endpoint.mine.url", "no valid host", "https://host/v1"),
    (HOME + MINE.replace("//", "//me:verysecret@"), "endpoint.mine.url", "user name or password", "nothing else"),
    (HOME + MINE.replace("8080", "8080/v1?key=verysecret"), "endpoint.mine.url", "query", "nothing else"),
    (HOME + MINE.replace("8080", "8080/v1#x"), "endpoint.mine.url", "fragment", "nothing else"),
    (HOME + MINE.replace("8080", "99999"), "endpoint.mine.url", "port", "http://host:port"),
    (HOME + MINE.replace("8080", "0"), "endpoint.mine.url", "port", "http://host:port"),
    (HOME + MINE.replace("127.0.0.1", "127.0.0.1 "), "endpoint.mine.url", "characters", "https://host/v1"),
    (HOME + MINE.replace("127.0.0.1", "[::1"), "endpoint.mine.url", "host", "https://host/v1"),
    (HOME + MINE.replace("8080", "8080/../x\\\\y"), "endpoint.mine.url", "characters", "https://host/v1"),
    (HOME + MINE.replace('url = "http://127.0.0.1:8080"\n', ""), "endpoint.mine.url", "missing", "engine listens"),
    (HOME + MINE.split("url")[0].replace("llamacpp", "fake") + "serves = ['m']\n", "endpoint.mine.url", "missing", ""),
    (HOME + MINE.replace("8080", "8080/v1/chat/completions"), "endpoint.mine.url", "ends in `/chat/comp", "/v1 or"),
    (HOME + MINE.replace("8080", "8080/v1/completions"), "endpoint.mine.url", "ends in `/completions`", "/v1 or"),
    (HOME + MINE.replace("8080", "8080/v1/messages/"), "endpoint.mine.url", "ends in `/messages`", "/v1 or"),
    (HOME + MINE.replace("8080", "8080/v1/embeddings"), "endpoint.mine.url", "ends in `/embeddings`", "/v1 or"),
    (HOME + MINE.replace("8080", "8080/api/v3/responses"), "endpoint.mine.url", "ends in `/responses`", "/v1 or"),
    (HOME + MINE.replace("8080", "8080/v1/models"), "endpoint.mine.url", "ends in `/models`", "/v1 or"),
    (GOOD + MINE.replace("mine", "other"), "endpoint.other.url", "`mine` is the same model", "make one endpoint"),
    (
        GOOD + MINE.replace("mine", "other").replace("serves", "model").replace('["m"]', '"m"'),
        "endpoint.other.url",
        "endpoint `mine` is the same model of the same engine",
        "several names",
    ),
    # what is no site of ours
    (
        GOOD + THEIRS.replace("cloud", "home").replace("example", "openai"),
        "endpoint.theirs.site",
        "this is an address of `openai`",
        "local = false, and write a price",
    ),
    (
        GOOD + THEIRS.replace("cloud", "home").replace("https://api.example.com/v1", "https://OLLAMA.com"),
        "endpoint.theirs.site",
        "this is an address of `ollama`",
        "local = false",
    ),
    (
        HOME + MINE.replace("llamacpp", "ollama") + "model = 'gpt-oss:120b-cloud'\n",
        "endpoint.mine.site",
        "`gpt-oss:120b-cloud` runs in Ollama's cloud",
        "local = false, and write a price",
    ),
    (
        HOME + MINE.replace("llamacpp", "ollama").replace('"m"', '"m", "glm-4.6:cloud"'),
        "endpoint.mine.site",
        "`glm-4.6:cloud` runs in Ollama's cloud",
        "local = false",
    ),
    (
        GOOD + THEIRS.replace("https", "http") + FREE + "api_key_env = 'KEY'\n",
        "endpoint.theirs.url",
        "in the clear",
        "https://",
    ),
    (
        GOOD + THEIRS.replace("https://api.example.com", "http://8.8.8.8") + FREE + "api_key_env = 'KEY'\n",
        "endpoint.theirs.url",
        "in the clear",
        "https://",
    ),
    (GOOD + "tls_ca_file = 'tidegate.toml'\n", "endpoint.mine.tls_ca_file", "http://", "https://"),
    (GOOD + THEIRS + FREE + "tls_ca_file = 'none.pem'\n", "endpoint.theirs.tls_ca_file", "cannot be read", "PEM"),
    (GOOD + THEIRS + FREE + "tls_ca_file = 'tidegate.toml'\n", "endpoint.theirs.tls_ca_file", "no certificates", "PEM"),
    # secrets
    (GOOD + "api_key = 'sk-verysecret'\n", "endpoint.mine.api_key", "no such setting", "`api_key_env`"),
    (GOOD + "api_key_env = 'sk-verysecret'\n", "endpoint.mine.api_key_env", "not the name of a variable", "capitals"),
    (GOOD + "api_key_env = 'NONE'\n", "endpoint.mine.api_key_env", "NONE is not set", "export NONE"),
    (GOOD + "api_key_env = 'EMPTY'\n", "endpoint.mine.api_key_env", "EMPTY is empty", "export EMPTY"),
    (GOOD + "api_key_env = 'TORN'\n", "endpoint.mine.api_key_env", "line break", "one line"),
    (GOOD + "api_key_env = 'KEY'\napi_key_file = 'k'\n", "endpoint.mine.api_key_file", "too", "remove one"),
    (GOOD + "api_key_file = 'none'\n", "endpoint.mine.api_key_file", "No such file", "readable by this user"),
    (GOOD + "courier = { name = 'a', address = 'rack' }\n", "endpoint.mine.courier.address", "a port", "host:port"),
    (GOOD + "api_key_file = '.'\n", "endpoint.mine.api_key_file", "", "key"),
    (GOOD + "api_key_file = '~/key'\n", "endpoint.mine.api_key_file", "No such file", "the whole path"),
    (GOOD + "api_key_file = 'tidegate.toml'\n", "endpoint.mine.api_key_file", "read by everybody", "chmod 600"),
    (
        GOOD + "api_key_file = 'a\\u0000b'\n".replace("'", '"'),
        "endpoint.mine.api_key_file",
        "not the name of a file",
        "key",
    ),
    ("[gateway]\njournal = '~/journal'\n" + GOOD, "gateway.journal", "nobody's home here", "the whole path"),
    ('[budget]\nledger = "a\\u0000b"\n' + GOOD, "budget.ledger", "not the name of a file", "a path"),
    ('[switchback]\nfile = "a\\u0000.json"\n' + GOOD, "switchback.file", "not the name of a file", "a path"),
    (GOOD + "api_key_file = 'sk-verysecret'\n", "endpoint.mine.api_key_file", "No such file", "never stands here"),
    (GOOD + f"api_key_file = 'sk-verysecret{'x' * 300}'\n", "endpoint.mine.api_key_file", "too long", "create it"),
    ("[gateway]\nadmin_key = { file = 'sk-verysecret' }\n" + GOOD, "gateway.admin_key.file", "No such file", "create"),
    # keys that do not stand in this file
    (GOOD + "api_key = 'sk-verysecret'\n", "endpoint.mine.api_key", "no such setting", "use `api_key_env`"),
    (GOOD + "api_key_evn = 'KEY'\n", "endpoint.mine.api_key_evn", "no such setting", "mean `api_key_env`"),
    ("[gateway]\nadmin_keys = {}\n" + GOOD, "gateway.admin_keys", "no such setting", "mean `admin_key`"),
    (GOOD + "[class.x]\nkey = 'a'\n", "class.x.key", "no such setting", "known are"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), MALFORMED, ids=lambda v: str(v)[:24])
def test_a_malformed_configuration_is_refused_with_its_path_and_a_remedy(
    tmp_path: Path, text: str, path: str, message: str, remedy: str
) -> None:
    (problem,) = [p for p in problems_of(tmp_path, text) if p.path == path and message in p.message]
    assert remedy in problem.remedy


@pytest.mark.parametrize("text", [text for text, *_ in MALFORMED], ids=lambda v: str(v)[:24])
def test_what_nobody_is_going_to_reach_is_refused_or_can_be_built(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(text)
    with suppress(ConfigError):  # and nothing else
        build(load_unreached(file), 0.0)


def test_what_nobody_is_going_to_reach_needs_no_address(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(GOOD.replace("url =", "# url ="))
    assert build(load_unreached(file), 0.0).upstreams["mine"].url is None


TWO_MISTAKES = ("endpoint = []", "[endpoint.a.b]", "[endpoint.gpt-4.5]")


@pytest.mark.parametrize("text", [text for text, *_ in MALFORMED], ids=lambda v: str(v)[:24])
def test_one_mistake_is_one_problem(tmp_path: Path, text: str) -> None:
    mistakes = 2 if any(fragment in text for fragment in TWO_MISTAKES) else 1
    assert len(problems_of(tmp_path, text)) == mistakes


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "[gateway]\ndrain_s = -1\nbody_mib_max = 0\nfoo = 1\n[policy]\nheld_max = -1\n"
        + HOME
        + MINE
        + "probe_s = 0\ncolour = 'red'\nprice = { free = 1, x = 2 }\n"
        + THEIRS
        + "api_key_env = 'NONE'\n"
    )
    assert {p.path for p in problems_of(tmp_path, text)} == {
        "gateway.drain_s",
        "gateway.body_mib_max",
        "gateway.foo",
        "policy.held_max",
        "endpoint.mine.probe_s",
        "endpoint.mine.colour",
        "endpoint.mine.price.free",
        "endpoint.mine.price.x",
        "endpoint.theirs.site",
        "endpoint.theirs.api_key_env",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[gateway\n", "line 1, column 9"),
        (b"a = 1\nb = \n", "line 2, column 5"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"\xef\xbb\xbf[gateway]\n", "byte order mark"),
        (b"a = 1\nb = '\xff'\n", "line 2 is not UTF-8"),
        (b"a = '\x00'\n", "line 1"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"%b = [\n{ %b = [\n{ %b = 1 }\n] }\n]\n" % (3 * (b".".join([b"a"] * 190),)), "nested too deeply"),
        (b"a = " + b"9" * 10_000, "too long"),
        (b"[policy]\nattempts_max = 0x" + b"F" * 10_000, "too long"),
        (b"b = 1\n" + b"a." * 50_000 + b"a = 1", "line 2 has more than 200 dots"),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert problem.path == ""
    assert message in problem.message
    assert problem.remedy


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    for path, message in [
        (str(tmp_path / "none.toml"), "no such file"),
        (str(tmp_path), "folder"),
        ("", "not the name of a file"),
        ("a\0b", "not the name of a file"),
        (str(tmp_path / ("x" * 300)), "cannot be read"),
        ("/dev/zero", "larger than 1 MiB"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        (problem,) = caught.value.problems
        assert problem.file == path
        assert message in problem.message


def test_an_example_is_to_be_copied_where_a_gateways_configuration_is_not_there_alone(tmp_path: Path) -> None:
    remedies = []
    for read in (load, load_unreached, policy_tables, load_courier, load_scenario):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / "none.toml")
        (problem,) = caught.value.problems
        assert problem.message == "there is no such file"
        remedies.append(problem.remedy)
    assert ["examples/" in remedy for remedy in remedies] == [True, True, False, False, False]
    assert "scenarios/" in remedies[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(GOOD)
    file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read by this user"):
        load(file)


LINES = [
    *("[gateway]", "[policy]", "[class.x]", "[class]", "[site.home]", "[site]", "[[site.home]]", "[endpoint.mine]"),
    *("local = true", "site = 'home'", "engine = 'llamacpp'", "url = 'http://h'", "serves = ['m']", "model = 1"),
    *(
        "price = 'free'",
        "price.tiers.x = 1",
        "price = [{}, { from = 1 }]",
        "price = [[]]",
        "price.tiers = [[{}]]",
        "prior = [1, 2]",
        "prior.sigma = nan",
        "slo = [{}]",
        "slo = {}",
    ),
    *("residency = ['home', 3]", "residency = [[]]", "capabilities = [['chat']]", "'' = ''", '"\\u0000" = 1'),
    *("listen = ':'", "admin = '[]:1'", "journal = '\u00e9'", "seed = 9223372036854775808", "api_key_file = '..'"),
    *("[class.x]\nlike = ['batch']", "courier = { name = 'a', address = 'h' }"),
    *("'a.b[0]' = {}", "'`' = 1", '"\' - at `$.x`" = 2', "context_tokens = 1_000", "tls_ca_file = '/dev/null'"),
]


@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_whatever_is_written_is_a_configuration_or_has_problems(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("\n".join(lines))
    with suppress(ConfigError):  # and nothing else
        build(load(file, {}), 0.0)


def test_a_problem_reads_as_file_path_message_and_remedy(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("[gateway]\nlistn = 'x'\n" + GOOD)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: gateway.listn: there is no such setting\n    did you mean `listen`?"


@pytest.mark.parametrize(
    "text",
    [
        '[site."x\\n"]\nlocal = true\n',
        '[class."x\\n"]\n',
        '[endpoint."x\\n"]\nsite = "desk"\nengine = "vllm"\nurl = "http://127.0.0.1:1"\n',
        '[[rule]]\nname = "x\\n"\nwhen = "stream"\nto = ["mine"]\n',
    ],
)
def test_no_name_ends_in_a_new_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(GOOD + text, "tidegate.toml", {})
    assert any("cannot be a metric label" in problem.message for problem in caught.value.problems)
