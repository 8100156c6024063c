# What RLN-CG is worth elsewhere than on the test set. Not part of the default target: `snakemake all study`.
STUDIED = [
    f"results/{cfg.run}/figures/{figure}/{predictor}.png"
    for figure in ("gains", "tolerances")
    for predictor in inside
]


rule study:
    input:
        STUDIED,


rule measure:
    input:
        lambda w: trained(w.predictor),
    output:
        "results/{run}/study/{predictor}.parquet",
    log:
        "results/{run}/logs/study/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/study/{predictor}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda w, attempt: 8000 * attempt,
    params:
        model=lambda w, input: input[0],
        options=options(n=cfg.microstructures.n),
    shell:
        "lspipe study --model {params.model:q} {params.options:q} --threads {threads:q} -- {output:q} 2>&1 | tee {log:q}"


rule study_figure:
    input:
        "results/{run}/study/{predictor}.parquet",
    output:
        report(
            "results/{run}/figures/{figure}/{predictor}.png",
            caption="../report/study.rst",
            category="RLN-CG elsewhere",
            labels={"content": "{figure}", "network": "{predictor}"},
        ),
        "results/{run}/figures/{figure}/{predictor}.pdf",
    log:
        "results/{run}/logs/{figure}/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/{figure}/{predictor}.tsv"
    wildcard_constraints:
        figure="gains|tolerances",
    conda:
        "../../environment.yml"
    params:
        options=lambda w, input: options(input=named([w.predictor], input)),
    shell:
        "lspipe figure {params.options:q} -- {wildcards.figure:q} {output:q} 2>&1 | tee {log:q}"
