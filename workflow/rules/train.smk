def training_data(wildcards):
    """Stores and receipts of the case that a network learns."""
    case = networks[wildcards.predictor].train_on[0]
    stores = [paths.microstructures(split) + "/zarr.json" for split in ("train", "valid")]
    return stores + receipts(case, "train") + receipts(case, "valid")


rule train:
    input:
        training_data,
    output:
        [paths.model("{predictor}") + f"/{name}" for name in ("model.safetensors", "model.json", "metrics.csv")],
    log:
        paths.root + "/logs/train/{predictor}.log",
    benchmark:
        paths.root + "/benchmarks/train/{predictor}.tsv"
    conda:
        "../../environment.yml"
    # Networks side by side use the cores better than one after the other.
    threads: max(1, (workflow.cores or 8 * len(networks)) // len(networks))
    params:
        folder=paths.model("{predictor}"),
        microstructures=os.path.dirname(paths.microstructures("train")),
        fields=lambda w: os.path.dirname(paths.fields(networks[w.predictor].train_on[0], "train")),
        options=lambda w: options(
            architecture=networks[w.predictor].architecture,
            seed=w.predictor.split("/seed")[1],
            **cfg.training.model_dump(exclude={"seeds"}),
        ),
    shell:
        "lspipe train {params.folder} --microstructures {params.microstructures} --fields {params.fields}"
        " {params.options} --threads {threads} 2>&1 | tee {log}"
