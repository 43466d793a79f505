"""Figures in print, of the paper's tables: what a result is put beside.

A row is r_W in percent, multiply-adds in millions, r_N in percent and the test error in percent;
None where nothing is printed. How the printed runs were chosen, out of how many, is not known.

Source:
    Dai et al. 2018, tables 1 and 2.
"""

Row = tuple[float | None, float | None, float | None, float | None]

LENET300: dict[str, Row] = {
    "VD": (25.28, None, 58.95, 1.8),
    "BC-GNJ": (10.76, None, 32.85, 1.8),
    "BC-GHS": (10.55, None, 34.71, 1.8),
    "L0": (26.02, None, 45.02, 1.4),
    "L0-sep": (10.01, None, 32.69, 1.8),
    "DN": (23.05, None, 57.94, 1.8),
    "VIBNet": (3.59, None, 16.98, 1.6),
}
LENET5: dict[str, Row] = {
    "GD": (1.38, 0.250, 32.00, 1.1),
    "GL": (23.69, 0.201, 19.35, 1.0),
    "VD": (9.29, 0.660, 60.78, 1.0),
    "SBP": (19.66, 0.213, 21.15, 0.9),
    "BC-GNJ": (0.95, 0.283, 35.03, 1.0),
    "BC-GHS": (0.64, 0.153, 22.80, 1.0),
    "L0": (8.92, 1.113, 85.82, 0.9),
    "L0-sep": (1.08, 0.389, 40.36, 1.0),
    "VIBNet": (0.83, 0.094, 15.55, 1.0),
}
