"""What a person wants to know about these tasks before using them."""

from zoo.registry import TaskCard

PACKAGE = "recurrent-zoo[tasks]"

MACKEY_GLASS = TaskCard(
    title="Mackey–Glass forecast",
    authors="Mackey and Glass; as in Voelker, Kajić and Eliasmith",
    year=2019,
    paper="Legendre Memory Units, NeurIPS 2019",
    definition="Reads the values of a chaotic equation with a delay of 17; asks for the value 15 "
    "steps later. The error is the mean square, in units of the series' variance.",
    measures="Whether a cell can compute with a window of the past.",
    results=("LMU 0.049, LSTM 0.059 of the root mean square (Voelker et al. 2019).",),
)
LORENZ = TaskCard(
    title="Lorenz forecast",
    authors="Lorenz",
    year=1963,
    paper="Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20",
    definition="Reads the first of three coordinates of a chaotic system every 0.02 of its time; "
    "asks for what it is 10 steps later. The error is the mean square, in units of its variance.",
    measures="Whether a cell can work out from one coordinate what the others are.",
)
DIGITS_ROWS = TaskCard(
    title="Sequential digits, row by row",
    authors="Le, Jaitly and Hinton (of MNIST); the images are by Alpaydin and Kaynak",
    year=2015,
    paper="A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
    definition="Reads an image of 8 × 8 row by row; after the last, asks which digit it is. It "
    "stands in for sequential MNIST where there is no network.",
    measures="Classification of short sequences, with few data: overfitting shows.",
    package=PACKAGE,
)
DIGITS_PERMUTED = TaskCard(
    title="Sequential digits, pixel by pixel in a random order",
    authors=DIGITS_ROWS.authors,
    year=2015,
    paper=DIGITS_ROWS.paper,
    definition="Reads the 64 pixels of an image in one random order; after the last, asks which "
    "digit it is.",
    measures="Classification where what belongs together is far apart.",
    package=PACKAGE,
)
MNIST = TaskCard(
    title="Sequential MNIST",
    authors="Le, Jaitly and Hinton; the images are by LeCun, Cortes and Burges",
    year=2015,
    paper=DIGITS_ROWS.paper,
    definition="Reads the 784 pixels of an image one by one, in their order or in one random "
    "order, or its 28 rows; after the last, asks which digit it is.",
    measures="Whether a cell keeps, over hundreds of steps, what it has seen.",
    results=(
        "Dilated GRU 0.992 in their order, 0.946 in a random one (Chang et al. 2017, Dilated "
        "Recurrent Neural Networks).",
    ),
    package="recurrent-zoo[datasets]",
    downloads=True,
)
SUNSPOTS = TaskCard(
    title="Sunspots",
    authors="Yule",
    year=1927,
    paper="On a method of investigating periodicities in disturbed series, with special reference "
    "to Wolfer's sunspot numbers, Philosophical Transactions A 226",
    definition="Reads the number of sunspots of each year since 1700; asks for that of the next. "
    "The error is the mean square, in units of the variance of the years to train on.",
    measures="Forecasting with some two hundred numbers to learn from.",
    package=PACKAGE,
)
CARBON_DIOXIDE = TaskCard(
    title="Carbon dioxide above Mauna Loa",
    authors="Keeling and Whorf",
    year=2004,
    paper="Atmospheric CO2 concentrations derived from flask air samples at sites in the SIO "
    "network",
    definition="Reads the change from week to week, 1958 to 2001; asks for that of four weeks "
    "later. The error is the mean square, in units of the variance of the weeks to train on.",
    measures="Forecasting of a season under noise.",
    package=PACKAGE,
)
