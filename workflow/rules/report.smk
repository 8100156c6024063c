def of(case, predictors, file):
    """Names and files of some predictors."""
    return [[label(p), file(p, case)] for p in predictors]


def errors(predictor, case):
    return paths.evaluation(predictor, case) + ".parquet"


def metrics(predictor, case):
    return paths.model(predictor) + "/metrics.csv"


evaluated = {case: [*BASELINES, *trained_on.get(case, [])] for case in cfg.cases}


rule configuration:
    output:
        report(
            paths.root + "/config.yaml",
            caption="../report/config.rst",
            category="Configuration",
            labels={"file": "configuration"},
        ),
    log:
        paths.root + "/logs/configuration.log",
    conda:
        "../../environment.yml"
    params:
        config=shlex.quote(cfg.model_dump_json()),
    shell:
        "lspipe config --json {params.config} > {output} 2> {log}"


rule table:
    input:
        [errors(p, case) for case, predictors in evaluated.items() for p in predictors],
    output:
        csv=paths.root + "/tables/mase.csv",
        md=report(
            paths.root + "/tables/mase.md",
            caption="../report/table.rst",
            category="Results",
            labels={"content": "MASE", "case": "all"},
        ),
    log:
        paths.root + "/logs/table.log",
    benchmark:
        paths.root + "/benchmarks/table.tsv"
    conda:
        "../../environment.yml"
    params:
        out=paths.root + "/tables/mase",
        options=options(
            of=[[case, *row] for case, predictors in evaluated.items() for row in of(case, predictors, errors)]
        ),
    shell:
        "lspipe table {params.out} {params.options} 2>&1 | tee {log}"


rule learning_curves:
    input:
        lambda w: [metrics(p, w.case) for p in trained_on[w.case]],
    output:
        report(
            paths.root + "/figures/learning_curves_{case}.png",
            caption="../report/learning_curves.rst",
            category="Training",
            labels={"content": "learning curves", "case": "{case}"},
        ),
        paths.root + "/figures/learning_curves_{case}.pdf",
    log:
        paths.root + "/logs/learning_curves_{case}.log",
    benchmark:
        paths.root + "/benchmarks/learning_curves_{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        out=paths.root + "/figures/learning_curves_{case}",
        options=lambda w: options(of=of(w.case, trained_on[w.case], metrics)),
    shell:
        "lspipe figure learning-curves {params.out} {params.options} 2>&1 | tee {log}"


rule histogram:
    input:
        lambda w: [errors(p, w.case) for p in evaluated[w.case]],
    output:
        report(
            paths.root + "/figures/mase_{case}.png",
            caption="../report/histogram.rst",
            category="Results",
            labels={"content": "MASE distribution", "case": "{case}"},
        ),
        paths.root + "/figures/mase_{case}.pdf",
    log:
        paths.root + "/logs/mase_{case}.log",
    benchmark:
        paths.root + "/benchmarks/mase_{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        out=paths.root + "/figures/mase_{case}",
        options=lambda w: options(
            of=of(w.case, trained_on[w.case], errors), baseline=of(w.case, BASELINES, errors)
        ),
    shell:
        "lspipe figure histogram {params.out} {params.options} 2>&1 | tee {log}"


rule examples:
    input:
        paths.evaluation("{network}/seed{seed}", "{case}") + ".zarr/zarr.json",
    output:
        slices=report(
            paths.root + "/figures/slices_{network}_seed{seed}_{case}.png",
            caption="../report/slices.rst",
            category="Fields",
            labels={"content": "truth, prediction, error", "network": "{network}", "seed": "{seed}", "case": "{case}"},
        ),
        iterates=report(
            paths.root + "/figures/iterates_{network}_seed{seed}_{case}.png",
            caption="../report/iterates.rst",
            category="Fields",
            labels={"content": "iterates", "network": "{network}", "seed": "{seed}", "case": "{case}"},
        ),
        pdf=[
            paths.root + "/figures/slices_{network}_seed{seed}_{case}.pdf",
            paths.root + "/figures/iterates_{network}_seed{seed}_{case}.pdf",
        ],
    log:
        paths.root + "/logs/examples_{network}_seed{seed}_{case}.log",
    benchmark:
        paths.root + "/benchmarks/examples_{network}_seed{seed}_{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        out=[paths.root + f"/figures/{kind}_{{network}}_seed{{seed}}_{{case}}" for kind in ("slices", "iterates")],
        store=paths.evaluation("{network}/seed{seed}", "{case}") + ".zarr",
        name=lambda w: label(f"{w.network}/seed{w.seed}"),
    shell:
        "lspipe figure examples {params.out} --store {params.store} --name {params.name:q} 2>&1 | tee {log}"
