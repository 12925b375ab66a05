"""Generated scenes: geometry against closed forms, and what is said of a picture."""

import collections
import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, map_coordinates
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ssl_common.data.targets import decode_normals
from ssl_common.scenes import drawing, materials, objects, places, rendering
from ssl_common.scenes.rendering import CUBE, CYLINDER, SPHERE, Camera, Light, Solid, View

GRAY = materials.plain(materials.rgb(0.5, 0.5, 0.5), 0)
CAMERA = Camera(360, 270, focal=400.0, horizon=120.0, eye=1.6)


def composed(index):
    return drawing.compose(np.random.default_rng((0, index)))


def box_at(z, size=(1.0, 1.0, 1.0), x=0.0):
    """Return a box that stands on the ground; its front is at Z."""
    return Solid(CUBE, (x, size[1] / 2, z + size[2] / 2), np.array(size) / 2, GRAY)


# ---- Rays and solids --------------------------------------------------------------------------

INSIDE = {
    "sphere": (SPHERE, lambda p: (p * p).sum(0) < 1),
    "cylinder": (CYLINDER, lambda p: (p[0] ** 2 + p[2] ** 2 < 1) & (np.abs(p[1]) < 1)),
    "cube": (CUBE, lambda p: np.abs(p).max(0) < 1),
    "gable": (objects.GABLE, lambda p: (np.abs(p).max(0) < 1) & (2 * np.abs(p[0]) + p[1] < 1)),
    "cone": (objects.CONE, lambda p: (objects.CONE.normals @ p).max(0) < 1),
}


@pytest.mark.parametrize("name", INSIDE)
def test_rays_cross_a_solid_where_their_points_are_inside(name):
    """Against walking along the ray in small steps, for a stretched, turned and moved solid."""
    shape, inside = INSIDE[name]
    rng, turn = np.random.default_rng(0), objects.rotation(1, 0.7) @ objects.rotation(2, -0.4)
    solid = Solid(shape, (0.2, 0.1, 0.3), (1.5, 0.8, 1.1), GRAY, turn)
    origin = rng.normal(0, 0.3, (3, 400, 1)) + [[[0]], [[0]], [[-6]]]
    direction = rng.normal(0, 0.15, (3, 400, 1)) + [[[0]], [[0]], [[1]]]
    enter, leave, hits = solid.hit(origin - solid.centre[:, None, None], direction, 0)
    steps = np.linspace(0, 12, 6001)
    points = (origin + direction * steps).reshape(3, -1) - solid.centre[:, None]
    within = inside(turn.T @ points / solid.size[:, None]).reshape(400, -1)
    long = within.sum(1) > 2
    assert 100 < long.sum() < 390 and hits[long].all()
    first = steps[within.argmax(1)]
    last = steps[within.shape[1] - 1 - within[:, ::-1].argmax(1)]
    np.testing.assert_allclose(enter[long, 0], first[long], atol=0.003)
    np.testing.assert_allclose(leave[long, 0], last[long], atol=0.003)
    short = hits[:, 0] & ~within.any(1)  # an edge cut between two steps
    assert (leave - enter)[short].max(initial=0) < 0.004


@pytest.mark.parametrize("name", INSIDE)
def test_normals_lead_out_of_a_solid(name):
    shape, inside = INSIDE[name]
    solid = Solid(shape, (0, 0, 0), (1.5, 0.8, 1.1), GRAY, objects.rotation(0, 0.5))
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(3, 500))
    origin = -5 * direction
    enter, _leave, hits = solid.hit(origin[:, None], direction[:, None], 0)
    assert hits.all()
    point = origin + enter * direction
    _albedo, normal = solid.surface(point.astype(np.float32), 0)
    np.testing.assert_allclose((normal**2).sum(0), 1, atol=1e-5)
    for shift, expected in ((0.01, False), (-0.01, True)):
        local = solid.turn.T @ (point + shift * normal) / solid.size[:, None]
        assert (inside(local) == expected).mean() > 0.98  # not at an edge


def test_noise_is_its_table_interpolated():
    rng = np.random.default_rng(2)
    a, b = rng.uniform(-40, 40, (2, 1000)).astype(np.float32)
    table = rendering._noise_levels().reshape(rendering.LEVELS, rendering.SIDE, rendering.SIDE)
    for level in (0, 3):
        blur = np.float32(math.log2(0.1 * 2**level))
        expected = map_coordinates(table[level], [a / 0.1, b / 0.1], order=1, mode="grid-wrap")
        np.testing.assert_allclose(rendering.noise(a, b, 0.1, blur), expected, atol=2e-3)
    deviation = table.std((1, 2))
    assert deviation[0] == pytest.approx(1) and (np.diff(deviation) < 0).all()


# ---- The camera -------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [4.5, 9.0, 25.0])
def test_size_and_foot_follow_from_the_distance_and_the_horizon(z):
    view = View(CAMERA)
    view.add([box_at(z, (1.0, 0.8, 0.5))], 0)
    face = np.abs(view.depth - z) < 1e-3
    rows, columns = np.nonzero(face)
    assert abs(np.ptp(rows) + 1 - CAMERA.focal * 0.8 / z) <= 1
    assert abs(np.ptp(columns) + 1 - CAMERA.focal * 1.0 / z) <= 1
    assert abs(rows.max() + 1 - (CAMERA.horizon + CAMERA.focal * CAMERA.eye / z)) <= 1
    assert (view.normal[:, face] == [[0], [0], [-1]]).all()


@pytest.mark.parametrize("roll", [0.0, 0.3, -1.2])
def test_pixels_are_seen_along_their_rays(roll):
    camera = CAMERA._replace(roll=roll)
    x, y = (v.ravel() for v in camera.rays())
    points = np.stack([x * 7, camera.eye + y * 7, np.full(x.shape, 7.0)])
    columns, rows = camera.project(points)
    expected = np.mgrid[:270, :360].reshape(2, -1) + 0.5
    np.testing.assert_allclose([rows, columns], expected, atol=1e-3)


def test_a_rolled_camera_sees_what_a_turned_picture_shows():
    """Seen from the middle, the rolled camera has a point where the level one has it, turned."""
    roll, points = 0.4, np.array([[0.5, -1.0, 2.0], [0.0, 1.0, 3.0], [5.0, 6.0, 9.0]])
    middle = np.array([CAMERA.width / 2, CAMERA.height / 2])[:, None]
    level = np.array(CAMERA.project(points)) - middle
    rolled = np.array(CAMERA._replace(roll=roll).project(points)) - middle
    # Columns run right and rows down: clockwise on the screen is the usual rotation.
    turn = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    np.testing.assert_allclose(rolled, turn @ level, atol=1e-9)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_a_solid_placed_at_another_scale_keeps_its_pattern(scale):
    """Twice as large and twice as far is the same picture, skin, holes and all."""
    skin = materials.bands(
        [materials.rgb(1, 0, 0), materials.rgb(0, 1, 0)], lambda p, n: p[1] / 0.2
    )

    def cut(p, blur):
        return np.mod(p[0], 0.3) < 0.1

    views = []
    for size in (1.0, scale):
        view = View(CAMERA._replace(eye=1.6 * size))
        solid = Solid(CUBE, (0, 1, 0), (1, 1, 1), skin, cut=cut)
        view.add([solid.place(np.array([0.3, 0, 6.0]) * size, objects.rotation(1, 0.4), size)], 0)
        views.append(view)
    assert (views[0].owner == 0).sum() > 2000
    differ = views[0].owner != views[1].owner
    assert differ.mean() < 1e-3  # rounding at edges
    same = (views[0].owner == 0) & (views[1].owner == 0)
    np.testing.assert_allclose(views[0].depth[same] * scale, views[1].depth[same], rtol=1e-4)
    unlike = np.abs(views[0].albedo - views[1].albedo).max(0)[same] > 0.02
    assert unlike.mean() < 0.01


def test_the_nearer_hides_the_farther_whatever_is_drawn_first():
    near, far = box_at(5.0), box_at(8.0, (3.0, 2.0, 1.0), x=0.3)
    views = []
    for order in ([(near, 0), (far, 1)], [(far, 1), (near, 0)]):
        view = View(CAMERA)
        for solid, owner in order:
            view.add([solid], owner)
        views.append(view)
    assert (views[0].owner == views[1].owner).all()
    both = views[0].whole[0] & views[0].whole[1]
    assert both.sum() > 1000 and (views[0].owner[both] == 0).all()
    assert (views[0].owner == 1).sum() == (views[0].whole[1] & ~both).sum()


# ---- Light ------------------------------------------------------------------------------------


def test_a_ball_casts_the_shadow_of_a_ball():
    """The ground is in it where the line to the sun passes the centre within the radius."""
    sun = np.array([0.6, 0.7, -0.3]) / np.linalg.norm([0.6, 0.7, -0.3])
    light = Light(sun, (1, 1, 1), (0.2, 0.2, 0.2))
    x, y = np.broadcast_arrays(*CAMERA.rays())
    below = y < 0
    z = np.full(y.shape, np.inf, np.float32)
    z[below] = CAMERA.eye / -y[below]
    shaded, centre = [], np.array([0.3, 1.5, 9.0])
    for ball in ([], [Solid(SPHERE, centre, (1, 1, 1), GRAY)]):
        view = View(CAMERA)
        view.depth[:] = z
        view.albedo[:, below], view.normal[1][below] = 0.5, 1
        view.add(ball, 0)
        shaded.append((view.shade(light, []), view.owner))
    # At the ball's outline the pictures of its dark side and of the ground mix.
    ground = (z < 40) & ~binary_dilation(shaded[1][1] == 0, iterations=6)
    darker = (shaded[1][0][0] < 0.6 * shaded[0][0][0])[ground]
    points = np.stack([x[ground] * z[ground], np.zeros(ground.sum()), z[ground]])
    apart = np.linalg.norm(np.cross(points.T - centre, sun), axis=1)
    assert darker[apart < 0.85].all() and (apart < 0.85).sum() > 300
    assert not darker[apart > 1.15].any()


# ---- What is said of a picture ----------------------------------------------------------------


@pytest.mark.parametrize("index", range(12))
def test_a_box_encloses_just_the_pixels_that_the_object_changed(index):
    scene = composed(index)
    view = drawing.render(scene)
    names = [thing.name for thing in scene.things]
    said = {owner: drawing.annotate(view, names[: owner + 1])[-1:] for owner in range(len(names))}
    checked = 0
    for owner, shown in said.items():
        others = [thing for number, thing in enumerate(scene.things) if number != owner]
        changed = view.depth != drawing.render(scene._replace(things=others)).depth
        if np.count_nonzero(changed) < drawing.MIN_PIXELS:
            continue
        rows, columns = np.nonzero(changed)
        expected = [columns.min(), rows.min(), columns.max(), rows.max()]
        assert shown[0].box == tuple(v + 1 for v in expected)
        assert shown[0].name == names[owner]
        checked += 1
    assert checked == len(drawing.annotate(view, names))


def annotated(*solids):
    view = View(CAMERA)
    for owner, solid in enumerate(solids):
        view.add([solid], owner)
    return drawing.annotate(view, [f"object{owner}" for owner in range(len(solids))])


def test_difficult_is_what_is_tiny_or_mostly_hidden():
    ball = Solid(SPHERE, (0, 0.8, 12), (0.8, 0.8, 0.8), GRAY)
    assert [s.difficult for s in annotated(ball)] == [False]
    for left, difficult in ((-0.45, True), (0.3, False)):  # the wall begins left of most of it
        wall = box_at(10.0, (4.0, 3.0, 0.2), x=2 + left * 10 / 12)
        shown = annotated(ball, wall)
        assert [s.difficult for s in shown] == [difficult, False], left
    assert [s.name for s in annotated(ball, box_at(10.0, (4.0, 3.0, 0.2)))] == ["object1"]
    for pixels, expected in ((100, [False]), (60, [True]), (20, [])):
        radius = math.sqrt(pixels / math.pi) * 20 / CAMERA.focal
        tiny = Solid(SPHERE, (0, 1.6, 20), (radius,) * 3, GRAY)
        assert [s.difficult for s in annotated(tiny)] == expected, pixels


@pytest.mark.parametrize("x, expected", [(0.0, False), (4.3, True), (-4.3, True)])
def test_truncated_is_what_meets_the_border(x, expected):
    (shown,) = annotated(Solid(SPHERE, (x, 1.2, 10), (1, 1, 1), GRAY))
    assert shown.truncated == expected


# ---- Normals ----------------------------------------------------------------------------------


def normals_at(view):
    """Return the normals of the picture of VIEW, and where the middles of its pixels lie."""
    found = decode_normals(drawing.normals(view))
    y, x = np.mgrid[: found.shape[1], : found.shape[2]]
    return found, x + 0.5, y + 0.5


def test_normals_of_a_ball_are_those_of_geometry():
    """Where the ray of a pixel meets the sphere, the normal leads from its middle to there."""
    view, radius = View(CAMERA), 1.2
    middle = np.array([0.4, 1.5, 6.0])
    view.add([Solid(SPHERE, middle, np.full(3, radius), GRAY)], 0)
    found, columns, rows = normals_at(view)
    assert found.shape == (3, 270, 360)
    x = (columns - CAMERA.width / 2) / CAMERA.focal
    y = (CAMERA.horizon - rows) / CAMERA.focal
    ray = np.stack([x, y, np.ones_like(x)])
    away = middle - [0, CAMERA.eye, 0]
    half = np.tensordot(away, ray, 1) / (ray**2).sum(0)
    rest = half**2 - (away @ away - radius**2) / (ray**2).sum(0)
    normal = ((half - np.sqrt(rest.clip(0))) * ray - away[:, None, None]) / radius
    normal[2] *= -1  # towards the camera
    inner = rest > 0.05
    assert inner.sum() > 5000
    degrees = np.degrees(np.arccos((found * normal).sum(0).clip(-1, 1)))
    assert degrees[inner].mean() < 0.5 and degrees[inner].max() < 1.5
    assert (found[2][inner] > 0).all() and not found[:, rest < -0.05].any()


@pytest.mark.parametrize("roll", [0.0, 0.5])
@pytest.mark.parametrize("turn", [-0.6, 0.0, 0.9])
def test_normals_of_a_wall_and_of_the_ground(turn, roll):
    """A turned wall has one normal; that of the ground leads up; the sky has none."""
    view = View(CAMERA._replace(roll=roll))
    places.paint(view, places.draw_place(np.random.default_rng(0)))
    wall = Solid(CUBE, (0, 1, 8), np.array([3, 1, 0.01]), GRAY, objects.rotation(1, turn))
    view.add([wall], 0)
    found, _columns, _rows = normals_at(view)
    roll_back = np.array([[math.cos(roll), -math.sin(roll), 0],
                          [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])  # fmt: skip
    expected = roll_back @ [-math.sin(turn), 0, math.cos(turn)]  # of (0, 0, -1), turned
    face = np.degrees(np.arccos((expected @ found[:, view.owner == 0]).clip(-1, 1)))
    assert len(face) > 2000 and np.quantile(face, 0.97) < 0.4  # but for its narrow sides
    _x, y = view.camera.rays()
    ground, sky = (view.owner != 0) & (y < -1e-3), (view.owner != 0) & (y > 1e-3)
    up = np.tile(roll_back @ [0, 1, 0], (ground.sum(), 1))
    np.testing.assert_allclose(found[:, ground].T, up, atol=0.008)
    assert ground.sum() > 1000 and sky.sum() > 1000 and not found[:, sky].any()


def points(picture):
    """Return the points of the camera's frame that the depth of PICTURE says, (3, H, W), in m."""
    fx, fy, cx, cy = picture.intrinsics
    z = np.where(picture.depth, picture.depth / 1000, np.nan)
    rows, columns = np.mgrid[: z.shape[0], : z.shape[1]] + 0.5
    return np.stack([(columns - cx) / fx * z, (cy - rows) / fy * z, -z])


def test_depth_and_intrinsics_give_the_normals():
    """The plane through the points of neighbouring pixels, but where surfaces meet."""
    for index in range(6):
        picture = drawing.draw(5, index)
        said, at = decode_normals(picture.normals), points(picture)
        across = (at[:, 1:-1, 2:] - at[:, 1:-1, :-2]).reshape(3, -1)
        up = (at[:, :-2, 1:-1] - at[:, 2:, 1:-1]).reshape(3, -1)
        computed = np.cross(across.T, up.T)
        computed /= np.linalg.norm(computed, axis=1)[:, None]
        cosine = (computed * said[:, 1:-1, 1:-1].reshape(3, -1).T).sum(1)
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        near = (at[2, 1:-1, 1:-1] > -8).ravel() & np.isfinite(angle)
        assert near.sum() > 3000
        # Millimetres are coarse against the step from a pixel to the next.
        assert np.median(angle[near]) < 4 and (angle[near] < 12).mean() > 0.8


def test_normals_of_scenes_turn_towards_the_camera():
    for index in range(6):
        picture = drawing.draw(0, index)
        found, at = decode_normals(picture.normals), points(picture)
        known = found.any(0) & np.isfinite(at[2])
        facing = -(found * at).sum(0)[known] / np.linalg.norm(at, axis=0)[known]
        assert known.mean() > 0.3 and (facing > -0.05).mean() > 0.995


# ---- Scenes -----------------------------------------------------------------------------------


def test_objects_stand_on_the_ground_and_the_first_is_large_and_in_the_middle():
    seen = collections.Counter()
    for index in range(80):
        scene = composed(index)
        camera = scene.camera
        assert 1 <= len(scene.things) <= drawing.MOST and len(scene.clutter) <= drawing.LOOSE
        for number, thing in enumerate(scene.things):
            seen[thing.name] += 1
            extent = np.hstack([solid.corners() for solid in thing.solids])
            size = np.ptp(extent, axis=1).max()
            # Parts sink a little, and the box around a turned ball is larger than the ball.
            lifted = {"balloon": 0.15, "ball": 0.25, "rock": 0.15}.get(thing.name, 0.08) * size
            assert abs(extent[1].min()) < lifted, thing.name
            (column,), (row,) = camera._replace(roll=0.0).project(thing.base[:, None])
            assert camera.horizon < row and abs(column - camera.width / 2) < camera.width / 2
            share = size * camera.focal / thing.base[2] / min(camera.width, camera.height)
            low, high = (drawing.OTHERS, drawing.MAIN)[number == 0]
            # Turned, a diagonal may run along an axis.
            assert 0.7 * low < share < 1.45 * high
        for one, other in zip(scene.things, scene.things[1:], strict=False):
            assert math.dist(one.base, other.base) > 0.5 * max(one.radius, other.radius)
    assert set(seen) == set(objects.CLASSES)


def test_loose_parts_are_no_objects():
    scene = next(s for s in map(composed, range(50)) if s.clutter)
    view, bare = drawing.render(scene), drawing.render(scene._replace(clutter=[]))
    assert set(view.whole) == set(bare.whole) == set(range(len(scene.things)))
    assert rendering.CLUTTER in view.owner and rendering.CLUTTER not in bare.owner
    assert all((view.whole[owner] == bare.whole[owner]).all() for owner in view.whole)


@pytest.mark.slow
def test_a_mean_colour_tells_neither_where_a_tile_lies_nor_what_a_picture_shows():
    """By scikit-learn's logistic regression, on other pictures; chance is 1 / 9 and the share."""
    means, places_of, shown = [], [], []
    for index in range(240):
        picture = drawing.draw(3, index)
        pixels = np.asarray(picture.image, np.float32)
        tiles = [
            part.mean((0, 1))
            for rows in np.array_split(pixels, 3)
            for part in np.array_split(rows, 3, axis=1)
        ]
        means.append(tiles)
        places_of.append(np.arange(9))
        shown.append({each.name for each in picture.annotations})
    means, places_of = np.array(means), np.array(places_of)
    model = LogisticRegression(max_iter=500).fit(
        means[:120].reshape(-1, 3), places_of[:120].ravel()
    )
    assert model.score(means[120:].reshape(-1, 3), places_of[120:].ravel()) < 0.22
    for name in ("car", "house", "person"):
        truth = np.array([name in each for each in shown])
        whole = means.mean(1)
        model = LogisticRegression(max_iter=500).fit(whole[:120], truth[:120])
        scores = model.decision_function(whole[120:])
        assert abs(roc_auc_score(truth[120:], scores) - 0.5) < 0.2


def test_a_scene_comes_from_its_seed_and_number_alone():
    def bytes_of(seed, index):
        image, *others = drawing.draw(seed, index)
        return image.size, image.tobytes(), [np.asarray(v).tobytes() for v in others[1:]], others[0]

    first = bytes_of(3, 5)
    assert bytes_of(3, 6) != first and bytes_of(4, 5) != first
    np.random.seed(1)  # no hidden state
    assert bytes_of(3, 5) == first


@pytest.mark.parametrize("name", objects.CLASSES)
def test_an_object_is_drawn_whole_and_opaque(name):
    """Alone before the sky, and its colours are albedos."""
    for seed in range(5):
        solids = objects.CLASSES[name](np.random.default_rng(seed))
        extent = np.hstack([solid.corners() for solid in solids])
        tall, z = extent[1].max(), 6 * np.abs(extent).max()
        camera = Camera(
            300, 300, focal=180 * z / (2 * np.abs(extent).max()), horizon=150, eye=tall / 2
        )
        view = View(camera)
        view.add([s.place((0, 0, z), objects.rotation(1, 0.5)) for s in solids], 0)
        seen = view.owner == 0
        assert seen.sum() > 150
        border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        assert not border.any()
        assert np.isfinite(view.depth[seen]).all()
        assert view.albedo[:, seen].min() >= -0.1 and view.albedo[:, seen].max() < 2
        np.testing.assert_allclose((view.normal[:, seen] ** 2).sum(0), 1, atol=1e-4)


@pytest.mark.slow
def test_no_class_is_rare_or_everywhere():
    count, of = collections.Counter(), 300
    for index in range(of):
        scene = composed(index)
        shown = drawing.annotate(drawing.render(scene), [thing.name for thing in scene.things])
        count.update({each.name for each in shown if not each.difficult})
    assert set(count) == set(objects.CLASSES)
    assert all(0.08 * of < n < 0.6 * of for n in count.values()), count
