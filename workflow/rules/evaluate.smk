rule evaluate:
    input:
        model=lambda w: (
            [] if w.predictor in BASELINES else multiext(paths.model(w.predictor) + "/model", ".safetensors", ".json")
        ),
        microstructures=paths.microstructures("test") + "/zarr.json",
        receipts=lambda w: receipts(w.case, "test"),
    output:
        errors=paths.evaluation("{predictor}", "{case}") + ".parquet",
        examples=paths.evaluation("{predictor}", "{case}") + ".zarr/zarr.json",
    log:
        paths.root + "/logs/evaluate/{predictor}/{case}.log",
    benchmark:
        paths.root + "/benchmarks/evaluate/{predictor}/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        model=lambda w: w.predictor if w.predictor in BASELINES else paths.model(w.predictor),
        stores=lambda w: [paths.microstructures("test"), paths.fields(w.case, "test")],
        examples=paths.evaluation("{predictor}", "{case}") + ".zarr",
    shell:
        "lspipe evaluate {params.model} {params.stores} --errors {output.errors} --examples {params.examples}"
        " --threads {threads} 2>&1 | tee {log}"
