"""Scripts that make files of this repository: goldens, assets, the reference configuration, schemas, the dashboard."""
