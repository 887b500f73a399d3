"""thingsvision's own loop, run by bench_extract.py in a Python that has it; prints images a second.

Its libraries want other versions than ours, so it has an environment of its own.
"""

import sys
import tempfile
import time

from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset


def main() -> None:
    """Extract the module's features of the first pictures of a folder."""
    source, model, module, folder, most = sys.argv[1:]
    extractor = get_extractor(model_name=model, source=source, device="cpu", pretrained=False)
    with tempfile.TemporaryDirectory() as out:
        pictures = ImageDataset(
            root=folder,
            out_path=out,
            backend=extractor.get_backend(),
            transforms=extractor.get_transformations(),
        )
        pictures.samples = pictures.samples[: int(most)]
        batches = DataLoader(dataset=pictures, batch_size=32, backend=extractor.get_backend())
        started = time.perf_counter()
        rows = extractor.extract_features(
            batches=batches, module_name=module, flatten_acts=True, output_type="ndarray"
        )
        seconds = time.perf_counter() - started
    assert len(rows) == int(most), len(rows)
    print(len(rows) / seconds)


if __name__ == "__main__":
    main()
