from vibnet.report.marks import picture, table


def test_a_table_has_a_line_of_rules_under_its_heads():
    assert table(("a", "b"), [(1, "x"), (2, "y")]) == (
        "| a | b |\n| --- | --- |\n| 1 | x |\n| 2 | y |"
    )


def test_a_picture_is_a_file_of_a_folder():
    assert picture("what", "folder", "name") == "![what](folder/name.svg)"
