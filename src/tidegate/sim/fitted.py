"""Traffic like that of public traces, by name: constants fitted to them, none of their rows.

`python -m bench.fit_traffic` makes every constant from the traces; tables are quantiles at `lengths.SHARES`. Sources:

- Azure LLM inference traces 2023, code and conversation (Azure/AzurePublicDataset, CC BY 4.0;
  Patel et al., Splitwise, ISCA 2024): lengths, rate and gaps, of the first 60 % of each.
- Mooncake's conversation trace (kvcache-ai/Mooncake, Apache-2.0; Qin et al., FAST 2025): lengths, rate and reuse, of
  its first 60 %.
- kv-cache-tester (callanjfox/kv-cache-tester, Apache-2.0): 710 sessions of coding agents and their 63 sub-agents.
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
AGENTS_OUTPUT_TOKENS = (0, 38, 58, 70, 89, 105, 117, 126, 137, 149, 161, 177, 195, 216, 242, 273, 311, 361, 426, 514,
    639, 898, 1130, 1554, 2187, 2793, 3686, 5018, 6339, 7982, 18200)
AGENTS_THINK_S = (0, 0, 2, 3, 3, 4, 5, 5, 6, 6, 7, 8, 9, 10, 12, 14, 18, 23, 34, 53, 94, 166, 256, 463, 846, 1467, 3028,
    4015, 11680, 25580, 77590)
AGENTS_USUAL_SHARE = 0.7853
AGENTS_USUAL_COMPACTED_TOKENS = (21140, 21500, 21910, 22720, 24410, 25930, 26810, 27770, 29700, 30920, 31380, 33370,
    35180, 36980, 38890, 41370, 44550, 47340, 52580, 57260, 65060, 69500, 70410, 75460, 78030, 82000, 85150, 89560,
    90130, 90320, 90510)
AGENTS_USUAL_FIRST_TOKENS = (6343, 8980, 9046, 9492, 10170, 11680, 13300, 15510, 16920, 17870, 18440, 18980, 19480,
    20060, 20660, 21610, 24280, 32100, 54960, 68310, 89460, 108000, 117500, 129200, 138600, 143900, 155500, 161500,
    167500, 173700, 182300)
AGENTS_USUAL_TURNS = (2, 3, 3, 4, 4, 7, 8, 11, 14, 17, 21, 25, 31, 40, 47.3, 56.6, 66, 73.2, 84, 97.8, 118.1, 142.4,
    154.6, 197.4, 230.5, 279, 329.6, 349.9, 433.1, 468.6, 514)
AGENTS_USUAL_CORRELATION = -0.053
AGENTS_USUAL_NEW_TOKENS = (0, 0, 0, 0, 0, 0, 12, 24, 39, 63, 105, 151, 206, 271, 342, 441, 581.8, 763, 1017, 1394, 1920,
    2926, 3744, 5412, 7888, 10430, 15720, 23270, 39070, 57260, 146400)
AGENTS_USUAL_BREAK_SHARE = 0.01372
AGENTS_USUAL_BREAK_MORE_TOKENS = (-94420, -81350, -69730, -57740, -50170, -34060, -24710, -15570, -4465, 102.3, 304,
    450.4, 530.9, 641.5, 773, 946, 1313, 1668, 2163, 2884, 4172, 9563, 15830, 22580, 29660, 45980, 55570, 71720, 76430,
    131800, 187400)
AGENTS_USUAL_BREAK_KEPT = (0, 0, 0, 0, 0, 0.02418, 0.07326, 0.09853, 0.1129, 0.1247, 0.1327, 0.1459, 0.1561, 0.1685,
    0.1853, 0.2163, 0.2568, 0.2818, 0.3292, 0.3679, 0.4073, 0.4823, 0.5069, 0.5806, 0.759, 0.8736, 0.9068, 0.9623,
    0.9803, 0.9816, 0.9828)
AGENTS_LARGE_FIRST_TOKENS = (9777, 9826, 11550, 12700, 13740, 19900, 56900, 65110, 89510, 89510, 117000, 186800, 213900,
    235700, 253000, 264700, 288800, 309500, 331400, 408000, 430600, 503000, 557600, 621700, 783000, 796400, 835200,
    846900, 849900, 850900, 851900)
AGENTS_LARGE_TURNS = (3, 3, 3.65, 4, 4, 6, 8.75, 12, 16.25, 21, 24, 27, 33.25, 36.5, 44, 53, 61, 92, 111, 137, 160.2,
    233, 234, 234, 234.1, 237.7, 257, 304.3, 358.7, 376.9, 395)
AGENTS_LARGE_CORRELATION = -0.633
AGENTS_LARGE_NEW_TOKENS = (0, 0, 0, 0, 0, 17.2, 34, 66, 108, 132, 175, 210, 260, 312, 379.1, 460, 574, 690.4, 855.5,
    1210, 1694, 2823, 3710, 6156, 7959, 8997, 16300, 20330, 55290, 91690, 235000)
AGENTS_LARGE_BREAK_SHARE = 0.01986
AGENTS_LARGE_BREAK_MORE_TOKENS = (-306900, -281500, -269300, -190700, -118900, -77550, -42840, -20410, -20090, -3341,
    -2102, -1162, -170.8, 255, 384, 384, 640, 640, 894.2, 1018, 4780, 24090, 83240, 166300, 225500, 234200, 369900,
    410900, 532700, 584800, 636900)
AGENTS_LARGE_BREAK_KEPT = (0, 0, 0, 0, 0, 0.0003851, 0.03237, 0.03671, 0.04659, 0.04965, 0.05108, 0.05116, 0.06416,
    0.08027, 0.08027, 0.09935, 0.1002, 0.1333, 0.1349, 0.1761, 0.2539, 0.4985, 0.5843, 0.8409, 0.9417, 0.9569, 0.987,
    0.9885, 0.9907, 0.9915, 0.9924)
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
# by itself: reuse is that of the trace and the median prompt within a tenth, the longest tenth up to a quarter longer.
AGENTS = (
    (
        Talk(
            first_tokens=Quantiles(AGENTS_USUAL_FIRST_TOKENS),
            output_tokens=Quantiles(AGENTS_OUTPUT_TOKENS),
            new_tokens=Quantiles(AGENTS_USUAL_NEW_TOKENS),
            turns=Quantiles(AGENTS_USUAL_TURNS),
            think_s=Quantiles(AGENTS_THINK_S),
            correlation=AGENTS_USUAL_CORRELATION,
            breaks=Break(
                share=AGENTS_USUAL_BREAK_SHARE,
                more_tokens=Quantiles(AGENTS_USUAL_BREAK_MORE_TOKENS),
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
            turns=Quantiles(AGENTS_LARGE_TURNS),
            think_s=Quantiles(AGENTS_THINK_S),
            correlation=AGENTS_LARGE_CORRELATION,
            breaks=Break(
                share=AGENTS_LARGE_BREAK_SHARE,
                more_tokens=Quantiles(AGENTS_LARGE_BREAK_MORE_TOKENS),
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
