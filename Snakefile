# The whole suite as one graph of files: data, teachers, one job per benchmark and row, then what collects their runs.
# `mule reproduce` starts it; `snakemake --configfile params/suite/fable.yaml --profile profiles/slurm` does so by hand.
# A step depends on the library's rooms behind it; a training on the definitions that its method runs through.
import json
import shlex
import sys

sys.path.insert(0, workflow.basedir)
from mule_lib.suite import graph

graph.end_with_driver()
SUITE = graph.check_suite(config, source="suite")
JOBS = graph.jobs(SUITE)
BENCHMARKS = graph.benchmarks(SUITE)
OUT = f"outputs/{SUITE.name}"
MULE = "python -m mule_lib.suite.cli"


wildcard_constraints:
    benchmark="[a-z_]+",
    teacher="(oracle|ensemble)(-cot)?",


def data_dir(benchmark):
    return f"{OUT}/01_data/{benchmark}"


def data_files(wildcards):
    return [f"{data_dir(wildcards.benchmark)}/train.jsonl"]


def prepared_dir(wildcards):
    folder = SUITE.data.get(wildcards.benchmark)
    return f"-p {shlex.quote(f'data_dir={json.dumps(folder)}')}" if folder else ""


def metrics_of(job):
    return [(folder / "metrics.json").as_posix() for folder in job.folders(SUITE)]


def teacher_of(job):
    return [f"{OUT}/teachers/{job.benchmark}/{job.teacher}.jsonl"] if job.teacher else []


def options_of(job):
    more = [f"teacher_file={file}" for file in teacher_of(job)] + (["beyond=true"] if job.beyond else [])
    return " ".join(f"-p {pair}" for pair in more)


def results():
    return [file for job in JOBS for file in metrics_of(job)]


def params_of(stem):
    """The suite's params file of a notebook; without one it takes its defaults."""
    return graph.params_file(stem, SUITE)


def with_file(stem):
    return f"-f {params_of(stem)[0]}" if params_of(stem) else ""


rule all:
    input:
        f"{OUT}/report.html",


if graph.in_code(SUITE):

    rule meet_the_model:
        input:
            graph.notebook("00_meet_the_model"),
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
        graph.notebook("01_data_standardization"),
        params_of("01_data_standardization"),
        prepared=lambda wildcards: graph.prepared_files(SUITE, wildcards.benchmark),
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
        " -p out_dir={OUT}/01_data/{wildcards.benchmark} -p overwrite=true --threads {threads}"
        " -o {OUT}/executed/01_data_standardization-{wildcards.benchmark}.ipynb > {log} 2>&1"


# The pilot study reads the answers of the teacher that the rows share; without such rows it asks itself.
PILOT_TEACHER = "oracle-cot" if graph.all_have_teacher(SUITE, "oracle-cot") else ""


rule gradient_cosine:
    input:
        graph.notebook("02_gradient_cosine"),
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
        "{MULE} run {input[0]} {params.file} -p out_dir={OUT}/02_gradient_cosine -p overwrite=true --threads {threads}"
        " -p data_dir={OUT}/01_data {params.teacher} -p benchmarks='[{params.names}]'"
        " -o {OUT}/executed/02_gradient_cosine.ipynb > {log} 2>&1"


rule teacher:
    input:
        graph.rooms("teacher"),
        data=data_files,
    output:
        update(f"{OUT}/teachers/{{benchmark}}/{{teacher}}.jsonl"),
        update(f"{OUT}/teachers/{{benchmark}}/{{teacher}}.jsonl.json"),
    log:
        f"{OUT}/logs/teacher-{{benchmark}}-{{teacher}}.txt",
    priority: 10
    params:
        given=lambda wildcards: f"-f {params_of('04_training')[0]} -p data_dir={data_dir(wildcards.benchmark)}"
        f" -p row={graph.teacher_row(SUITE, wildcards.benchmark, wildcards.teacher)} -p benchmark={wildcards.benchmark}",
    resources:
        gpu=SUITE.gpus_per_run,
    shell:
        "{MULE} teacher {params.given} --out {output[0]} --overwrite --threads {threads} > {log} 2>&1"


for job in JOBS:

    rule:
        name:
            f"training_{job.benchmark}_{job.row}_{job.seeds[0]}"
        input:
            "notebooks/04_training.ipynb",
            data=f"{data_dir(job.benchmark)}/train.jsonl",
            teacher=teacher_of(job),
        output:
            # Not deleted before the job starts, so that seeds whose identity still agrees are reused.
            [update(file) for file in metrics_of(job)],
        log:
            f"{OUT}/logs/04_training-{job.name}.txt",
        params:
            code=graph.code_behind(SUITE, job),  # a change of it is a reason to start the job
            job=job.name,
            given=f"-f {params_of('04_training')[0]} -p row={job.row} -p benchmark={job.benchmark}"
            f" -p data_dir={data_dir(job.benchmark)} -p out_dir={OUT}/runs/{job.benchmark}/{job.row}"
            f" -p seeds='{list(job.seeds)}' -p overwrite=true {options_of(job)}",
        resources:
            gpu=SUITE.gpus_per_run,
        shell:
            "{MULE} run {input[0]} {params.given} --threads {threads}"
            " -o {OUT}/executed/04_training-{params.job}.ipynb > {log} 2>&1"


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
            graph.notebook(stem),
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
MET = [f"{OUT}/00_meet_the_model/provenance.json"] if graph.in_code(SUITE) else []


rule claims:
    input:
        graph.notebook("08_claims"),
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
        graph.rooms("report"),
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
