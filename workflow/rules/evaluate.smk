rule evaluate:
    input:
        lambda w: ancient(plan.solved_lists([w.case], "test")),
        model=lambda w: plan.model(w.predictor),
        test=lambda w: plan.stores(w.case, "test"),
    output:
        errors="results/{run}/evaluation/{predictor}/{case}.parquet",
        examples="results/{run}/evaluation/{predictor}/{case}.zarr/zarr.json",
    log:
        "results/{run}/logs/evaluate/{predictor}/{case}.log",
    benchmark:
        "results/{run}/benchmarks/evaluate/{predictor}/{case}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda w, threads, attempt: math.ceil(
            attempt * plan.evaluation_memory(w.predictor, threads)
        ),
    params:
        model=lambda w, input: input.model[0] if input.model else w.predictor,
        step=lambda w: (
            ["--allow-empty", *words(step=cfg.kept[w.case][1])]
            if w.case in cfg.kept
            else []
        ),
        version=EVALUATION_VERSION,
    shell:
        "lspipe evaluate --errors {output.errors:q} --examples {output.examples:q} --threads {threads:q} {params.step:q}"
        " -- {params.model:q} {input.test:q} 2>&1 | tee {log:q}"
