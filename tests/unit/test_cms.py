# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import dataclasses
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting import cms

VELO = cms.Site(
    name="velo.infini.test",
    account="velo",
    kind="spip",
    title="Vélo en ville",
    article="Atelier du samedi",
    php="7.4",
    release="bullseye",
    database="velo_spip",
)
JARDIN = cms.Site("jardin.infini.test", "jardin", "wordpress", "Jardins", "Graines", "8.2", "bookworm", "jardin_wp")
PHARE = cms.Site("phare.infini.test", "phare", "static", "Les amis du phare", "Visite")

plain = st.text("abc é-", min_size=1, max_size=8)
kinds = st.sampled_from(["spip", "wordpress", "static"])
sites = st.lists(
    st.builds(
        cms.Site,
        name=st.from_regex(r"[a-z]{1,8}\.test", fullmatch=True),
        account=st.just("velo"),
        kind=kinds,
        title=plain,
        article=plain,
    ),
    unique_by=lambda site: site.name,
    max_size=6,
)
seen = st.builds(cms.Seen, st.booleans(), st.none() | plain, st.none() | plain)


@given(sites, st.data())
def test_planning_after_applying_gives_nothing(wanted, data):
    before = {site.name: data.draw(seen) for site in wanted if data.draw(st.booleans())}
    steps = cms.plan(wanted, before)
    after = {**before, **{step.site.name: cms.Seen(True, step.site.title, step.site.article) for step in steps}}
    assert cms.plan(wanted, after) == []
    untouched = {site.name for site in wanted} - {step.site.name for step in steps}
    assert all(before[name].configured for name in untouched)


def test_files_are_copied_only_where_the_cms_is_not_configured():
    half = cms.Seen(True, "Vélo en ville", None)
    fresh, corrected = cms.plan([VELO, JARDIN], {"jardin.infini.test": half})
    assert fresh.copy
    assert fresh.before == "velo.infini.test: no spip site"
    assert not corrected.copy
    assert corrected.before.endswith("titled « Vélo en ville », with the article «  »")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "velo"}, "no host name"),
        ({"name": "velo.infini.test/../x"}, "no host name"),
        ({"account": "Vélo"}, "no account name"),
        ({"title": "Thé & gâteaux"}, "'Thé & gâteaux'"),
        ({"article": 'Une "fête"'}, "without quotes"),
        ({"article": ""}, "the article ''"),
        ({"php": None, "database": None}, "without php and database"),
        ({"database": "a`b"}, "small letters"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(change, word):
    with pytest.raises(cms.CmsError, match=r"^the site ") as refused:
        cms.refuse_impossible([dataclasses.replace(VELO, **change)])
    assert word in str(refused.value)


def test_apostrophes_are_written_as_the_cms_print_them():
    site = dataclasses.replace(VELO, article="Le concert d'hiver")
    cms.refuse_impossible([site])
    assert site.article == "Le concert d\u2019hiver"


def test_names_and_databases_are_each_site_s_own():
    cms.refuse_impossible([VELO, JARDIN, PHARE])
    with pytest.raises(cms.CmsError, match=r"two sites have the name velo\.infini\.test"):
        cms.refuse_impossible([VELO, dataclasses.replace(VELO, database="other")])
    with pytest.raises(cms.CmsError, match="two sites have the database velo_spip"):
        cms.refuse_impossible([VELO, dataclasses.replace(JARDIN, database="velo_spip")])


def test_only_sites_whose_tables_exist_are_asked_for():
    tables = cms.parse_table_list("velo_spip.spip_articles\nvelo_spip.spip_meta\njardin_wp.wp_posts\n")
    question = cms.titles_question([VELO, JARDIN, PHARE], tables)
    assert "'velo.infini.test'" in question
    assert "`velo_spip`.spip_articles" in question
    assert "jardin" not in question
    assert cms.titles_question([PHARE], tables) == ""


def test_titles_come_back_whatever_they_hold():
    titles = ["Vélo\ten ville\n", "L\u2019été"]
    answer = "\t".join(["velo.infini.test", *(title.encode().hex().upper() for title in titles)])
    assert cms.parse_titles(f"{answer}\njardin.infini.test\tNULL\tNULL\n") == {
        "velo.infini.test": tuple(titles),
        "jardin.infini.test": (None, None),
    }


def test_the_installer_runs_as_the_account_in_its_own_world_and_carries_no_secret():
    command = cms.install_command(VELO, "/srv/php/7.4")
    for property_ in ("User=velo", "RootDirectory=/srv/php/7.4", "PrivateNetwork=yes", "BindPaths=/srv/members/velo"):
        assert f"--property={property_}" in command
    assert command[-1] == "/usr/local/lib/infini/cms/spip.php"
    assert "/usr/bin/php7.4" in command
    native = shlex.join(cms.install_command(JARDIN, "/"))
    assert "RootDirectory" not in native
    assert "TemporaryFileSystem=/run:ro /srv:ro" in native
    assert "password" not in native


def test_a_version_lives_in_its_tree_or_on_the_host():
    assert cms.runtime_root("7.4", ["7.4"]) == "/srv/php/7.4"
    assert cms.runtime_root("8.2", ["7.4"]) == "/"


def test_static_pages_carry_both_titles():
    pages = cms.static_pages(dataclasses.replace(PHARE, title="Phare (nord)"), "Un texte < deux")
    assert "<title>Phare (nord)</title>" in pages["index.html"]
    assert "Visite" in pages["index.html"]
    assert "<h2>Visite</h2>\n<p>Un texte &lt; deux</p>" in pages["article.html"]
