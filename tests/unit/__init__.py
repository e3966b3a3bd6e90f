from tests import examples as examples
