"""OfficeHome, leave one domain out: Art, Clipart, Product, Real World; 65 classes (CVPR 2017; DomainBed)."""

from ._domainbed import DomainBed, card, places

DOMAINS = {"art": "Art", "clipart": "Clipart", "product": "Product", "real_world": "Real World"}
NAMES = (
    "Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer "
    "Couch Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses "
    "Hammer Helmet Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan "
    "Paper_Clip Pen Pencil Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink "
    "Sneakers Soda Speaker Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam"
)


class OfficeHome(DomainBed):
    """The number that papers print is the mean of the four runs that hold out one domain each, with three trial seeds.
    Counts of each domain were seen in no source that could be checked, so none is asserted. Splits and ID column:
    `_domainbed.py`. Prompt: CLIPood's 'a photo of a {}.', class names in lower case with spaces."""

    folders_of = DOMAINS
    names = tuple(NAMES.split())
    places = places(
        DOMAINS, "office_home", "OfficeHome", "officehome", "OfficeHomeDataset_10072016",
        "office_home/OfficeHomeDataset_10072016", "DomainBed/office_home",
    )  # fmt: skip
    card = card(
        "OfficeHome", "Venkateswara et al., Deep Hashing Network, CVPR 2017 (arXiv:1706.07522)",
        "hemanthdv.github.io/officehome-dataset", "about 1.1 GB", "office_home/<domain>/<class>/*.jpg", DOMAINS,
        note="the data set is said to have 15,588 images in all; counts are not checked",
    )  # fmt: skip
