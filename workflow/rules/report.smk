rule configuration:
    output:
        report(
            "results/{run}/config.yaml",
            caption="../report/config.rst",
            category="Configuration",
            labels={"content": "merged configuration"},
        ),
    log:
        "results/{run}/logs/configuration.log",
    benchmark:
        "results/{run}/benchmarks/configuration.tsv"
    conda:
        "../../environment.yml"
    params:
        config=cfg.model_dump_json(),
    shell:
        "lspipe config --json {params.config:q} > {output}.new 2> {log} && mv {output}.new {output}"


rule table:
    input:
        [
            file
            for case, predictors in evaluated.items()
            for file in errors(case, predictors)
        ],
    output:
        csv="results/{run}/tables/mase.csv",
        md="results/{run}/tables/mase.md",
        html=report(
            "results/{run}/tables/mase.html",
            caption="../report/table.rst",
            category="Results",
            labels={"content": "table of MASE", "case": "all"},
        ),
    log:
        "results/{run}/logs/table.log",
    benchmark:
        "results/{run}/benchmarks/table.tsv"
    conda:
        "../../environment.yml"
    params:
        options=options(
            of=[
                [case, *row]
                for case, predictors in evaluated.items()
                for row in named(predictors, errors(case, predictors))
            ]
        ),
    shell:
        "lspipe table {output} {params.options} 2>&1 | tee {log}"


rule learning_curves:
    input:
        lambda w: metrics(w.case, trained_on[w.case]),
    output:
        report(
            "results/{run}/figures/learning_curves/{case}.png",
            caption="../report/learning_curves.rst",
            category="Training",
            labels={"content": "learning curves", "case": "{case}"},
        ),
        "results/{run}/figures/learning_curves/{case}.pdf",
    log:
        "results/{run}/logs/learning_curves/{case}.log",
    benchmark:
        "results/{run}/benchmarks/learning_curves/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w, input: options(of=named(trained_on[w.case], input)),
    shell:
        "lspipe figure learning-curves {output} {params.options} 2>&1 | tee {log}"


rule mase:
    input:
        networks=lambda w: errors(w.case, learned[w.case]),
        baseline=lambda w: errors(w.case, [BASELINE]),
    output:
        report(
            "results/{run}/figures/mase/{case}.png",
            caption="../report/mase.rst",
            category="Results",
            labels={"content": "distribution of MASE", "case": "{case}"},
        ),
        "results/{run}/figures/mase/{case}.pdf",
    log:
        "results/{run}/logs/mase/{case}.log",
    benchmark:
        "results/{run}/benchmarks/mase/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w, input: options(
            of=named(learned[w.case], input.networks), baseline=input.baseline
        ),
    shell:
        "lspipe figure mase {output} {params.options} 2>&1 | tee {log}"


rule convergence:
    input:
        lambda w: errors(w.case, evaluated[w.case]),
    output:
        report(
            "results/{run}/figures/convergence/{case}.png",
            caption="../report/convergence.rst",
            category="Results",
            labels={"content": "error against cost", "case": "{case}"},
        ),
        "results/{run}/figures/convergence/{case}.pdf",
    log:
        "results/{run}/logs/convergence/{case}.log",
    benchmark:
        "results/{run}/benchmarks/convergence/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w, input: options(of=named(evaluated[w.case], input)),
    shell:
        "lspipe figure convergence {output} {params.options} 2>&1 | tee {log}"


rule slices:
    input:
        "results/{run}/evaluation/{predictor}/{case}.zarr/zarr.json",
    output:
        report(
            "results/{run}/figures/slices/{predictor}/{case}.png",
            caption="../report/slices.rst",
            category="Fields",
            labels={
                "content": "truth, prediction, error",
                "case": "{case}",
                "network": "{predictor}",
            },
        ),
        "results/{run}/figures/slices/{predictor}/{case}.pdf",
    log:
        "results/{run}/logs/slices/{predictor}/{case}.log",
    benchmark:
        "results/{run}/benchmarks/slices/{predictor}/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: options(name=label(w.predictor)),
    shell:
        "lspipe figure slices {output} --examples {input} {params.options} 2>&1 | tee {log}"


rule iterates:
    input:
        "results/{run}/evaluation/{predictor}/{case}.zarr/zarr.json",
    output:
        report(
            "results/{run}/figures/iterates/{predictor}/{case}.png",
            caption="../report/iterates.rst",
            category="Fields",
            labels={
                "content": "iterates pass by pass",
                "case": "{case}",
                "network": "{predictor}",
            },
        ),
        "results/{run}/figures/iterates/{predictor}/{case}.pdf",
    log:
        "results/{run}/logs/iterates/{predictor}/{case}.log",
    benchmark:
        "results/{run}/benchmarks/iterates/{predictor}/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: options(name=label(w.predictor)),
    shell:
        "lspipe figure iterates {output} --examples {input} {params.options} 2>&1 | tee {log}"
