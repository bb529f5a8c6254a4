# The whole suite as one graph of files: data, teachers, one run per benchmark, row and seed, then what collects them.
# `mule reproduce` starts it; `snakemake --configfile params/suite/fable.yaml --profile profiles/slurm` does so by hand.
# Every step depends on exactly the library files that its notebook imports (mule_lib/closure.py).
import sys

sys.path.insert(0, workflow.basedir)
from mule_lib import suite

SUITE = suite.check(config, source="suite")
RUNS = suite.runs(SUITE)
BENCHMARKS = suite.benchmarks(SUITE)
OUT = f"outputs/{SUITE.name}"
RUN = f"{OUT}/runs/{{benchmark}}/{{row}}/seed-{{seed}}"
BY_NAME = {(run.benchmark, run.row, str(run.seed)): run for run in RUNS}
MULE = "python -m mule_lib.cli"


wildcard_constraints:
    benchmark="[a-z_]+",
    row="[a-z0-9_]+",
    seed="[0-9]+",
    teacher="(oracle|ensemble)(-cot)?",


def data_dir(benchmark):
    return f"{OUT}/01_data/{benchmark}"


def data_files(wildcards):
    return [f"{data_dir(wildcards.benchmark)}/train.jsonl"]


def prepared_dir(wildcards):
    return "" if suite.is_built(wildcards.benchmark) else f"-p data_dir={SUITE.data[wildcards.benchmark]}"


def run_of(wildcards):
    return BY_NAME[wildcards.benchmark, wildcards.row, wildcards.seed]


def teacher_of(wildcards):
    stem = run_of(wildcards).teacher
    return [f"{OUT}/teachers/{wildcards.benchmark}/{stem}.jsonl"] if stem else []


def run_options(wildcards):
    teacher = teacher_of(wildcards)
    more = [f"teacher_file={teacher[0]}"] if teacher else []
    more += ["beyond=true"] if run_of(wildcards).beyond else []
    return " ".join(f"-p {pair}" for pair in more)


def results():
    return [f"{OUT}/runs/{run.benchmark}/{run.row}/seed-{run.seed}/metrics.json" for run in RUNS]


def params_of(stem):
    """The suite's params file of a notebook; without one it takes its defaults."""
    return suite.params_file(stem, SUITE.params)


def with_file(stem):
    return f"-f {params_of(stem)[0]}" if params_of(stem) else ""


rule all:
    input:
        f"{OUT}/report.html",


if any(suite.is_built(benchmark) for benchmark in BENCHMARKS):

    rule meet_the_model:
        input:
            suite.notebook("00_meet_the_model"),
            params_of("00_meet_the_model"),
        output:
            f"{OUT}/00_meet_the_model/provenance.json",
        log:
            f"{OUT}/logs/00_meet_the_model.txt",
        priority: 20  # the longest step, which would otherwise end alone
        params:
            file=with_file("00_meet_the_model"),
        shell:
            "{MULE} run {input[0]} {params.file} -p out_dir={OUT}/00_meet_the_model --threads {threads}"
            " -o {OUT}/executed/00_meet_the_model.ipynb > {log} 2>&1"


# Where the benchmark is prepared, the suite reads the notebook's copy of its folder.
rule data:
    input:
        suite.notebook("01_data_standardization"),
        params_of("01_data_standardization"),
        prepared=lambda wildcards: suite.prepared_files(SUITE, wildcards.benchmark),
    output:
        f"{OUT}/01_data/{{benchmark}}/train.jsonl",
    log:
        f"{OUT}/logs/01_data_standardization-{{benchmark}}.txt",
    params:
        file=with_file("01_data_standardization"),
        prepared=prepared_dir,
    resources:
        gpu=SUITE.gpus_per_run,
    shell:
        "{MULE} run {input[0]} {params.file} -p benchmark={wildcards.benchmark} {params.prepared}"
        " -p out_dir={OUT}/01_data/{wildcards.benchmark} --threads {threads}"
        " -o {OUT}/executed/01_data_standardization-{wildcards.benchmark}.ipynb > {log} 2>&1"


# The pilot study reads the answers of the teacher that the rows share; without such rows it asks itself.
PILOT_TEACHER = "oracle-cot" if suite.all_have_teacher(SUITE, "oracle-cot") else ""


rule gradient_cosine:
    input:
        suite.notebook("02_gradient_cosine"),
        params_of("02_gradient_cosine"),
        expand(f"{OUT}/01_data/{{benchmark}}/train.jsonl", benchmark=BENCHMARKS),
        expand(f"{OUT}/teachers/{{benchmark}}/{PILOT_TEACHER}.jsonl", benchmark=BENCHMARKS) if PILOT_TEACHER else [],
    output:
        f"{OUT}/figures/figure2.csv",
    log:
        f"{OUT}/logs/02_gradient_cosine.txt",
    priority: 10
    params:
        file=with_file("02_gradient_cosine"),
        names=", ".join(BENCHMARKS),
        teacher=f"-p teacher_dir={OUT}/teachers" if PILOT_TEACHER else "",
    resources:
        gpu=SUITE.gpus_per_run,
    shell:
        "{MULE} run {input[0]} {params.file} -p out_dir={OUT}/02_gradient_cosine --threads {threads}"
        " -p data_dir={OUT}/01_data {params.teacher} -p benchmarks='[{params.names}]'"
        " -o {OUT}/executed/02_gradient_cosine.ipynb > {log} 2>&1"


rule teacher:
    input:
        suite.module("training_run"),
        data=data_files,
    output:
        update(f"{OUT}/teachers/{{benchmark}}/{{teacher}}.jsonl"),
        update(f"{OUT}/teachers/{{benchmark}}/{{teacher}}.jsonl.json"),
    log:
        f"{OUT}/logs/teacher-{{benchmark}}-{{teacher}}.txt",
    priority: 10
    params:
        data=lambda wildcards: data_dir(wildcards.benchmark),
        kind=lambda wildcards: wildcards.teacher.removesuffix("-cot"),
        cot=lambda wildcards: "--cot" if wildcards.teacher.endswith("-cot") else "--no-cot",
        model=lambda wildcards: suite.teacher_model(SUITE, wildcards.benchmark, wildcards.teacher),
    resources:
        gpu=SUITE.gpus_per_run,
    shell:
        "{MULE} teacher --benchmark {wildcards.benchmark} --kind {params.kind} {params.cot} --data-dir {params.data}"
        " {params.model}"
        " --out {output[0]} --overwrite --threads {threads} > {log} 2>&1"


rule training:
    input:
        suite.notebook("04_training"),
        params=lambda wildcards: run_of(wildcards).params.as_posix(),
        data=data_files,
        teacher=teacher_of,
    output:
        # Not deleted before the run starts, so that a run whose fingerprint still agrees is reused.
        update(f"{RUN}/metrics.json"),
    log:
        f"{OUT}/logs/04_training-{{benchmark}}-{{row}}-{{seed}}.txt",
    params:
        data=lambda wildcards: data_dir(wildcards.benchmark),
        options=run_options,
    resources:
        gpu=SUITE.gpus_per_run,
    shell:
        "{MULE} run {input[0]} -f {input.params} -p benchmark={wildcards.benchmark} -p seed={wildcards.seed}"
        f" -p data_dir={{params.data}} -p out_dir={RUN.replace('{', '{wildcards.')} -p overwrite=true {{params.options}}"
        " --threads {threads}"
        " -o {OUT}/executed/04_training-{wildcards.benchmark}-{wildcards.row}-{wildcards.seed}.ipynb > {log} 2>&1"


# Each reads all run folders, so each waits for all of them.
COLLECTING = {
    "05_main_results": (BENCHMARKS[0], ["tables/table1.csv"]),
    "06_ablation": (BENCHMARKS[0], ["tables/table2.csv"]),
    "07_wmdp_radar": (BENCHMARKS[-1], ["tables/table3.csv", "figures/figure3.csv"]),
}

for stem, (benchmark, artifacts) in COLLECTING.items():

    rule:
        name:
            f"collect_{stem}"
        input:
            suite.notebook(stem),
            params_of(stem),
            results(),
        output:
            [f"{OUT}/{artifact}" for artifact in artifacts],
        log:
            f"{OUT}/logs/{stem}.txt",
        params:
            stem=stem,
            benchmark=benchmark,
            file=with_file(stem),
        shell:
            "{MULE} run {input[0]} {params.file} -p name={SUITE.name} -p out_dir={OUT} --threads {threads}"
            " -p benchmark={params.benchmark} -o {OUT}/executed/{params.stem}.ipynb > {log} 2>&1"


PILOT = [f"{OUT}/figures/figure2.csv"]
MET = [f"{OUT}/00_meet_the_model/provenance.json"] if any(map(suite.is_built, BENCHMARKS)) else []


rule claims:
    input:
        suite.notebook("08_claims"),
        params_of("08_claims"),
        results(),
        PILOT,
        [f"{data_dir(benchmark)}/train.jsonl" for benchmark in BENCHMARKS],
    output:
        f"{OUT}/tables/claims.csv",
    log:
        f"{OUT}/logs/08_claims.txt",
    params:
        file=with_file("08_claims"),
        names=", ".join(BENCHMARKS),
    shell:
        "{MULE} run {input[0]} {params.file} -p name={SUITE.name} -p out_dir={OUT} --threads {threads}"
        " -p benchmarks='[{params.names}]' -o {OUT}/executed/08_claims.ipynb > {log} 2>&1"


rule report:
    input:
        suite.module("report/page"),
        "mule_lib/templates/report.html.jinja",
        MET,
        PILOT,
        [f"{OUT}/{artifact}" for _, artifacts in COLLECTING.values() for artifact in artifacts],
        f"{OUT}/tables/claims.csv",
    output:
        f"{OUT}/report.html",
    log:
        f"{OUT}/logs/report.txt",
    shell:
        "{MULE} report {SUITE.name} > {log} 2>&1"
