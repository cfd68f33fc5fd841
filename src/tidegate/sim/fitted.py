"""Traffic like that of public traces, by name: constants fitted to them, none of their rows.

`python -m bench.fit_traffic` makes every constant from the traces; tables are quantiles at `lengths.SHARES`. Sources:

- Azure LLM inference traces 2023, code and conversation (Azure/AzurePublicDataset, CC BY 4.0;
  Patel et al., Splitwise, ISCA 2024): lengths, rate and gaps, of the first 60 % of each.
- Mooncake's conversation trace (kvcache-ai/Mooncake, Apache-2.0; Qin et al., FAST 2025): lengths, rate and reuse, of
  its first 60 %.
- kv-cache-tester (callanjfox/kv-cache-tester, Apache-2.0): 710 sessions of coding agents and their 63 sub-agents,
  those that were recorded several times once.
- ServeGen (alibaba/ServeGen, Apache-2.0): clients of its model `m-large` over 14 days.
- BurstGPT (HPMLL/BurstGPT, CC BY 4.0; Wang et al., KDD 2025): requests by the hour over 61 days.
"""

from typing import Literal

import msgspec

from tidegate.sim.arrivals import ArrivalProcess, Diurnal, Gamma, Part, Poisson, Renewal, Sum
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.lengths import Constant, Lengths, Quantiles
from tidegate.sim.traffic import Break, Open, Reuse, Sessions, Talk

# fmt: off
AZURE_CODE_RATE_PER_S = 3.114
AZURE_CODE_GAP_CV = 13.61
AZURE_CODE_PROMPT_TOKENS = (3, 13, 18, 39.6, 75.5, 149, 239.5, 390, 580, 768, 924.5, 1075, 1232, 1468, 1690, 1887, 2148,
    2411, 2722, 3195, 3918, 5009, 5981, 7082, 7435, 7436, 7436, 7436, 7437, 7437, 7437)
AZURE_CODE_OUTPUT_TOKENS = (6, 6, 6, 6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 17, 19, 23, 28, 37, 54, 65.25, 85,
    126.3, 162.4, 239.7, 332.2, 743.4, 846, 1899)
AZURE_CODE_GAPS_S = (5.96e-06, 7.153e-06, 2.215e-05, 4.08e-05, 8.512e-05, 0.000211, 0.0008957, 0.001199, 0.002104,
    0.00339, 0.005471, 0.01328, 0.03245, 0.05205, 0.0748, 0.09237, 0.09648, 0.09924, 0.1022, 0.1378, 0.1962, 0.2383,
    0.2989, 0.3792, 0.5021, 0.6708, 1.899, 6.906, 31.29, 58.22, 173.5)
AZURE_CONV_RATE_PER_S = 5.827
AZURE_CONV_GAP_CV = 1.08
AZURE_CONV_PROMPT_TOKENS = (2, 20, 42, 120, 191, 367, 379, 389, 397, 404, 417, 863, 1000, 1027, 1052, 1078, 1106, 1146,
    1236, 1425, 2465, 4077, 4082, 4087, 4093, 4100, 4125, 4152, 4596, 5136, 14050)
AZURE_CONV_OUTPUT_TOKENS = (7, 14, 16, 24, 38, 49, 58, 69, 78, 85, 91, 96, 104, 117, 141, 168, 217, 383, 395, 400, 411,
    425, 430, 453, 516, 554, 605, 649, 751.2, 937.8, 1000)
MOONCAKE_RATE_PER_S = 3.243
MOONCAKE_PROMPT_TOKENS = (891, 893, 894, 895.3, 901, 973, 1281, 1693, 2397, 3461, 4443, 5267, 6216, 7323, 8658, 9977,
    11640, 13560, 15800, 18490, 22490, 28120, 32220, 40990, 54830, 70910, 89870, 111300, 118600, 121300, 124800)
MOONCAKE_OUTPUT_TOKENS = (1, 1, 3, 3, 9, 24, 46, 100, 158.2, 218, 266, 300, 329.7, 356, 381, 403, 427, 452, 477, 511,
    551, 607, 647.7, 713, 822, 916.3, 1169, 1755, 2000, 2000, 2000)
MOONCAKE_CORRELATION = 0.072
MOONCAKE_RESUMED_SHARE = 0.4312
MOONCAKE_RESUMED_PART = (0.01538, 0.03842, 0.05258, 0.08307, 0.1304, 0.2308, 0.3838, 0.4551, 0.5312, 0.6, 0.6667,
    0.7273, 0.7983, 0.8333, 0.8571, 0.8889, 0.9048, 0.9212, 0.9355, 0.9459, 0.9592, 0.9706, 0.9756, 0.9815, 0.9855,
    0.9899, 1, 1, 1, 1, 1)
AGENTS_OUTPUT_TOKENS = (0, 38, 57, 70, 88, 104, 117, 127, 139, 150, 163, 178, 197, 217, 242, 272, 309, 358, 423, 508,
    633.4, 878, 1110, 1507, 2154, 2693, 3690, 5017, 6423, 8264, 18200)
AGENTS_THINK_S = (0, 0, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9, 10, 12, 15, 18, 24, 35, 57, 99, 169, 257, 471, 845, 1412, 2946,
    3458, 6688, 12790, 77590)
AGENTS_USUAL_SHARE = 0.8051
AGENTS_USUAL_COMPACTED_TOKENS = (21140, 21500, 21910, 22720, 24410, 25930, 26810, 27770, 29700, 30920, 31380, 33370,
    35180, 36980, 38890, 41370, 44550, 47340, 52580, 57260, 65060, 69500, 70410, 75460, 78030, 82000, 85150, 89560,
    90130, 90320, 90510)
AGENTS_USUAL_FIRST_TOKENS = (6343, 8979, 9042, 9488, 10110, 11680, 13340, 15680, 17190, 18060, 18480, 19020, 19500,
    20180, 20720, 21650, 24530, 35160, 55960, 68770, 92320, 109000, 119500, 129600, 138900, 144300, 155700, 161600,
    167500, 173900, 182300)
AGENTS_USUAL_TURNS = (2, 3, 3, 4, 4, 7, 8, 11, 13, 17, 21, 24, 31, 40, 47.7, 56.4, 66, 73.8, 84, 97.2, 116, 140.6,
    155.9, 198.6, 233.9, 280, 330.7, 351.8, 433.7, 469.4, 514)
AGENTS_USUAL_CORRELATION = -0.062
AGENTS_USUAL_NEW_TOKENS = (0, 0, 0, 0, 0, 0, 11, 23, 35, 58, 95.65, 143, 194, 258, 328, 419, 541, 712, 943, 1274, 1719,
    2575, 3221, 4304, 6306, 7881, 11330, 14870, 19860, 24890, 89550)
AGENTS_USUAL_EARLY_TOKENS = (0, 0, 0, 0, 0, 0, 18, 31, 58.75, 110.9, 169, 252.2, 370, 564, 843, 1264, 1899, 2788, 3723,
    5493, 7978, 12510, 15920, 23040, 32020, 41990, 59320, 75930, 94980, 107200, 146400)
AGENTS_USUAL_BREAK_SHARE = 0.01378
AGENTS_USUAL_BREAK_RESIZED_SHARE = 0.3765
AGENTS_USUAL_BREAK_TOKENS = (9393, 10850, 11120, 11690, 14630, 21860, 27730, 31980, 35730, 39780, 46050, 57900, 71320,
    81360, 87800, 91940, 97700, 101500, 107700, 115000, 121300, 125800, 129300, 132900, 137600, 141400, 157100, 196900,
    196900, 196900, 196900)
AGENTS_USUAL_BREAK_KEPT = (0, 0, 0, 0, 0, 0.02415, 0.07194, 0.09845, 0.1125, 0.1242, 0.1325, 0.1458, 0.1561, 0.1684,
    0.184, 0.2149, 0.2553, 0.2793, 0.3368, 0.3692, 0.4114, 0.483, 0.5072, 0.583, 0.7625, 0.8748, 0.9096, 0.9636, 0.9804,
    0.9816, 0.9828)
AGENTS_LARGE_FIRST_TOKENS = (9777, 9820, 10970, 12550, 13600, 17590, 35610, 65110, 88660, 148800, 198900, 214800,
    235700, 252400, 261200, 283700, 300700, 323500, 372700, 418800, 445100, 534800, 582500, 702700, 788400, 803100,
    838800, 847600, 850100, 851000, 851900)
AGENTS_LARGE_TURNS = (3, 3, 3.43, 4, 4, 5.3, 8, 11.6, 14, 17, 21, 24, 26.35, 32, 35, 43.4, 48.95, 57, 67.25, 98, 119.6,
    143.4, 164.8, 227.5, 236.1, 238.6, 266.5, 316.3, 363.5, 379.3, 395)
AGENTS_LARGE_CORRELATION = -0.574
AGENTS_LARGE_NEW_TOKENS = (0, 0, 0, 0, 0, 18, 39.25, 73, 112, 157, 197, 237, 289, 355, 433, 534, 663, 829, 1080, 1528,
    2177, 3510, 5240, 7090, 8516, 9936, 16340, 24200, 74020, 93240, 235000)
AGENTS_LARGE_EARLY_TOKENS = (0, 0, 0, 0, 0, 9, 28.55, 72.4, 144.8, 195, 238.9, 278.2, 334.7, 413.5, 507.7, 674.4, 825.2,
    1065, 1667, 3087, 5204, 6392, 7196, 7995, 10330, 11680, 17110, 22990, 79750, 116800, 132600)
AGENTS_LARGE_BREAK_SHARE = 0.01773
AGENTS_LARGE_BREAK_RESIZED_SHARE = 0.5172
AGENTS_LARGE_BREAK_TOKENS = (9903, 9930, 9957, 10090, 10390, 13070, 13860, 14550, 16660, 26850, 52100, 63010, 71510,
    109600, 120200, 138300, 154800, 193800, 224700, 244600, 257600, 328400, 339600, 449300, 491600, 516000, 572000,
    634700, 672300, 684800, 697400)
AGENTS_LARGE_BREAK_KEPT = (0, 0, 0, 0, 0, 0, 0, 0.02445, 0.0339, 0.0367, 0.04631, 0.05332, 0.07293, 0.08093, 0.1025,
    0.134, 0.1525, 0.179, 0.2535, 0.3942, 0.5073, 0.7017, 0.8936, 0.9406, 0.9581, 0.9865, 0.9881, 0.9898, 0.9913,
    0.9918, 0.9924)
SERVEGEN_RATE_PER_S = 195.8
SERVEGEN_SHARES = (0.1605, 0.07169, 0.06637, 0.06636, 0.06273, 0.05406, 0.05386, 0.04443, 0.02649, 0.02579, 0.02332,
    0.02161)
SERVEGEN_CVS = (2.33, 1.147, 2.415, 2.434, 2.83, 16.34, 4.234, 0.9428, 0.9201, 1.054, 5.541, 4.364)
SERVEGEN_WEIBULL = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
SERVEGEN_PROMPT_TOKENS = (0, 58.15, 60, 60.83, 63.48, 74, 77, 152.3, 271.6, 464.6, 493.8, 557.6, 579.2, 605.9, 661.8,
    752, 836, 899.9, 1087, 1269, 1805, 2371, 2393, 2404, 2696, 3296, 5487, 8061, 10720, 12920, 30680)
SERVEGEN_OUTPUT_TOKENS = (0, 1, 1, 1, 1, 1.7, 3, 5, 8, 11.95, 15.05, 27.15, 39.4, 52.52, 71.1, 95.5, 121.2, 152.2,
    210.4, 363, 429.3, 461.6, 484, 541.8, 645.5, 750.2, 873.8, 1029, 1369, 1581, 8192)
BURSTGPT_HOURS = (0.953, 0.9015, 0.574, 0.5197, 0.3744, 0.3489, 0.2016, 0.2248, 0.3194, 0.3878, 0.8922, 1.293, 1.786,
    1.515, 1.848, 1.44, 1.491, 1.366, 1.23, 1.63, 1.376, 1.185, 1.115, 1.028)
# fmt: on

PresetName = Literal["azure-code", "azure-conv", "mooncake-conv", "coding-agents", "servegen-large"]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """An open loop as traced: at its rate, which a scenario may set otherwise while the pattern of gaps stays."""

    arrivals: Gamma | Poisson | Renewal | Sum
    lengths: Lengths
    reuse: Reuse = Reuse()


# Sessions within the usual window of 200,000 tokens, compacted in time, and those in a larger one. Each turn is drawn
# by itself, yet over thousands of sessions the prompts' p50 and p99 are within 10 % of the trace's, p90 a fifth above.
AGENTS = (
    (
        Talk(
            first_tokens=Quantiles(AGENTS_USUAL_FIRST_TOKENS),
            output_tokens=Quantiles(AGENTS_OUTPUT_TOKENS),
            new_tokens=Quantiles(AGENTS_USUAL_NEW_TOKENS),
            early_turns=5,
            early_tokens=Quantiles(AGENTS_USUAL_EARLY_TOKENS),
            turns=Quantiles(AGENTS_USUAL_TURNS),
            think_s=Quantiles(AGENTS_THINK_S),
            correlation=AGENTS_USUAL_CORRELATION,
            breaks=Break(
                share=AGENTS_USUAL_BREAK_SHARE,
                resized_share=AGENTS_USUAL_BREAK_RESIZED_SHARE,
                tokens=Quantiles(AGENTS_USUAL_BREAK_TOKENS),
                kept=Quantiles(AGENTS_USUAL_BREAK_KEPT),
            ),
            window_tokens=170_000,
            compacted=Quantiles(AGENTS_USUAL_COMPACTED_TOKENS),
        ),
        AGENTS_USUAL_SHARE,
    ),
    (
        Talk(
            first_tokens=Quantiles(AGENTS_LARGE_FIRST_TOKENS),
            output_tokens=Quantiles(AGENTS_OUTPUT_TOKENS),
            new_tokens=Quantiles(AGENTS_LARGE_NEW_TOKENS),
            early_turns=5,
            early_tokens=Quantiles(AGENTS_LARGE_EARLY_TOKENS),
            turns=Quantiles(AGENTS_LARGE_TURNS),
            think_s=Quantiles(AGENTS_THINK_S),
            correlation=AGENTS_LARGE_CORRELATION,
            breaks=Break(
                share=AGENTS_LARGE_BREAK_SHARE,
                resized_share=AGENTS_LARGE_BREAK_RESIZED_SHARE,
                tokens=Quantiles(AGENTS_LARGE_BREAK_TOKENS),
                kept=Quantiles(AGENTS_LARGE_BREAK_KEPT),
            ),
            window_tokens=1_000_000,
        ),
        1.0 - AGENTS_USUAL_SHARE,
    ),
)

PRESETS = {
    # Bursts of minutes between pauses of minutes: no Gamma or Weibull law has this CV without most gaps being nought.
    "azure-code": Preset(
        arrivals=Renewal(rate_per_s=AZURE_CODE_RATE_PER_S, gaps_s=Quantiles(AZURE_CODE_GAPS_S)),
        lengths=Lengths(
            prompt_tokens=Quantiles(AZURE_CODE_PROMPT_TOKENS), output_tokens=Quantiles(AZURE_CODE_OUTPUT_TOKENS)
        ),
    ),
    "azure-conv": Preset(
        arrivals=Gamma(rate_per_s=AZURE_CONV_RATE_PER_S, cv=AZURE_CONV_GAP_CV),
        lengths=Lengths(
            prompt_tokens=Quantiles(AZURE_CONV_PROMPT_TOKENS), output_tokens=Quantiles(AZURE_CONV_OUTPUT_TOKENS)
        ),
    ),
    # Its ticks of three seconds hold as many requests as chance would have it: variance 10.8 to a mean of 9.7.
    "mooncake-conv": Preset(
        arrivals=Poisson(rate_per_s=MOONCAKE_RATE_PER_S),
        lengths=Lengths(
            prompt_tokens=Quantiles(MOONCAKE_PROMPT_TOKENS),
            output_tokens=Quantiles(MOONCAKE_OUTPUT_TOKENS),
            correlation=MOONCAKE_CORRELATION,
        ),
        # A conversation goes on after two minutes at the median, the time of 400 requests. In the trace it is the
        # longer ones that go on, here any: reuse is a tenth below the trace's.
        reuse=Reuse(
            common_share=1.0,
            common_tokens=Constant(512.0),
            resumed_share=MOONCAKE_RESUMED_SHARE,
            resumed_tokens_min=2048,
            resumed_part=Quantiles(MOONCAKE_RESUMED_PART),
            recent=800,
        ),
    ),
    "servegen-large": Preset(
        arrivals=Sum(
            rate_per_s=SERVEGEN_RATE_PER_S,
            parts=(
                *(
                    Part(share=share, cv=cv, weibull=bool(weibull))
                    for share, cv, weibull in zip(SERVEGEN_SHARES, SERVEGEN_CVS, SERVEGEN_WEIBULL, strict=True)
                ),
                # 150 smaller clients together.
                Part(share=1.0 - sum(SERVEGEN_SHARES), cv=1.0),
            ),
        ),
        lengths=Lengths(
            prompt_tokens=Quantiles(SERVEGEN_PROMPT_TOKENS), output_tokens=Quantiles(SERVEGEN_OUTPUT_TOKENS)
        ),
    ),
}


def fitted(
    preset: PresetName,
    ask: Ask,
    chance: Chance,
    *,
    name: str = "",
    space: int = 0,
    begins_s: float = 0.0,
    rate_per_s: float | None = None,
    requests_max: int | None = None,
    starts_h: int | None = None,
    users: int = 8,
) -> Open | Sessions:
    """The traffic of this name, at its own rate unless another is given; `coding-agents` are `users` instead.

    With `starts_h` an open loop has the hours of a day and begins at that one; the rate is the day's mean. That any of
    these traces has BurstGPT's day, and that its first hour is the one after midnight, is an assumption.
    """
    name = name or preset
    if preset == "coding-agents":
        return Sessions(users=users, talks=AGENTS, ask=ask, chance=chance, name=name, space=space, begins_s=begins_s)
    chosen = PRESETS[preset]
    process: ArrivalProcess = chosen.arrivals
    if rate_per_s is not None:
        process = msgspec.structs.replace(chosen.arrivals, rate_per_s=rate_per_s)
    if starts_h is not None:
        process = Diurnal(process=process, factors=BURSTGPT_HOURS, starts_h=starts_h)
    return Open(
        process=process,
        lengths=chosen.lengths,
        reuse=chosen.reuse,
        ask=ask,
        chance=chance,
        name=name,
        space=space,
        begins_s=begins_s,
        requests_max=requests_max,
    )
