"""The concepts of a painted scene: label v is concept v, counted from 1."""

CONCEPTS = (
    *((name, "object") for name in ("sky", "cloud", "sun", "hill", "grass", "path", "tree")),
    *((name, "part") for name in ("wall", "roof", "dome", "tower", "door", "window")),
)
SKY, CLOUD, SUN, HILL, GRASS, PATH, TREE, WALL, ROOF, DOME, TOWER, DOOR, WINDOW = range(1, 14)
