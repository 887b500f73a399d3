"""How things are computed: algebra and bytes. Nothing here knows Prefect or a study."""
