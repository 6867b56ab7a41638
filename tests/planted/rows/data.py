"""Bugs in what is uploaded, read, cleaned, labelled and deleted."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

INGEST_WORKER = "services/ingest/tests/test_worker.py"
INGEST_DELETION = "services/ingest/tests/test_deletion.py"
READERS_TEST = "services/ingest/tests/test_readers.py"
CLEANING_TEST = "services/ingest/tests/test_cleaning.py"
WORKBOOK_TEST = "services/ingest/tests/test_workbook.py"
LABELING_TEST = "services/labeling/tests/test_service.py"
LABELING_DELETION = "services/labeling/tests/test_deletion.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "a dataset that an earlier release said in parts has no manifest",
        "schemas:CarriesDataset._read_flat",
        "parts = {'manifest': said.get('dataset_manifest'), **said}",
        "parts = said",
        "tests/contract/test_datasets.py::test_what_a_recorded_release_said_in_parts_is_read_whole",
    ),
    bug(
        "the word of a parser's error is written outside of what names a full disk",
        "ingest:main",
        "try:\n"
        "    with exhaustion_named():\n"
        "        try:\n"
        "            leave_result(folder)\n"
        "        except Exception as error:\n"
        "            write_fault(folder, error)\n"
        "            raise\n"
        "except Exhausted as error:\n"
        "    return error.exit_code",
        "try:\n"
        "    with exhaustion_named():\n"
        "        leave_result(folder)\n"
        "except Exhausted as error:\n"
        "    return error.exit_code\n"
        "except Exception as error:\n"
        "    write_fault(folder, error)\n"
        "    raise",
        f"{INGEST_WORKER}::test_a_parser_that_finds_no_room_for_the_word_of_its_error_is_no_fault_of_the_file",
    ),
    bug(
        "deletion: the rows an earlier release left stay",
        "ingest:File.finish_deletion",
        "self.purged = False",
        "pass",
        f"{INGEST_DELETION}::test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes",
    ),
    bug(
        "upload: an instruction without its input",
        "ingest:Roles.read",
        "asked = f'{asked}\\n\\n{context}'",
        "pass",
        f"{READERS_TEST}::test_all_of_an_instruction_row_is_read",
    ),
    bug(
        "upload: a tool call is cut off its answer",
        "ingest:_message",
        "_refuse_calls(message, where, number)",
        "pass",
        f"{READERS_TEST}::test_a_tool_call_is_refused_by_its_name",
    ),
    bug(
        "upload: rows that differ in what is not read become one",
        "ingest:split",
        "f'{_spelled(row)}\\n{beside}'",
        "_spelled(row)",
        f"{CLEANING_TEST}::test_rows_that_differ_only_in_what_is_not_read_stay_apart",
    ),
    bug(
        "upload: the blank rows of a spreadsheet are bad rows",
        "ingest.readers.csv_table:_records",
        "if any(map(says_something, record)):",
        "if record:",
        f"{READERS_TEST}::test_what_a_spreadsheet_leaves_behind_is_no_row",
    ),
    bug(
        "upload: the first of two columns that could be the text is taken",
        "ingest.readers.rows.roles:_roles",
        "if len(found) > 1:",
        "if len(found) > 9:",
        f"{READERS_TEST}::test_columns_that_could_be_the_same_are_refused_with_both_places",
    ),
    bug(
        "upload: a brace makes rows of a document",
        "ingest:reader_of",
        "chain(named, begun)",
        "chain(begun, named)",
        f"{READERS_TEST}::test_a_document_by_its_name_is_one_however_it_begins",
    ),
    bug(
        "upload: a workbook is inflated before its size is looked at",
        "ingest.readers.workbook:_check",
        "if inflated > MAX_INFLATED_BYTES or len(parts) > MAX_PARTS:",
        "if len(parts) > MAX_PARTS:",
        f"{WORKBOOK_TEST}::test_what_inflates_to_too_much_is_refused_before_it_is_inflated",
    ),
    bug(
        "upload: a part may inflate to more than it says",
        "ingest.readers.workbook:_check",
        "if any((part.compress_type not in BOUNDED for part in parts)):",
        "if False:",
        f"{WORKBOOK_TEST}::test_a_part_that_zipfile_unpacks_unbounded_is_refused",
    ),
    bug(
        "upload: a row that stands twice is left out",
        "ingest:_number",
        "if before < number <= LAST_ROW and",
        "if number <= LAST_ROW and",
        f"{WORKBOOK_TEST}::test_what_stands_twice_is_refused",
    ),
    bug(
        "upload: merged cells are read as blank ones",
        "ingest.readers.worksheet:_records",
        "_refuse_merged(merged, header, last, width)",
        "pass",
        f"{WORKBOOK_TEST}::test_merged_cells_of_a_table_are_refused",
    ),
    bug(
        "upload: a formula that nothing calculated is an empty cell",
        "ingest.readers.worksheet:_records",
        "elif uncalculated:\n    raise uncalculated",
        "pass",
        f"{WORKBOOK_TEST}::test_a_formula_is_its_value_and_one_without_a_value_is_refused_by_its_cell",
    ),
    bug(
        "upload: what a parser prints is in the log of its worker",
        "ingest:Reading._parse",
        "stderr=asyncio.subprocess.DEVNULL",
        "stderr=None",
        f"{INGEST_WORKER}::test_what_a_parser_prints_is_neither_kept_nor_logged",
    ),
    bug(
        "upload: what an error says of a file is logged",
        "ingest:write_fault",
        "{type(behind).__name__} at",
        "{behind} at",
        f"{INGEST_WORKER}::test_of_a_parser_that_fails_the_log_names_the_place_and_nothing_of_the_file",
    ),
    bug(
        "split: a row and the one that goes on from it are apart",
        "ingest:groups_of",
        "for beginning in list(_beginnings(row))[:-1]:",
        "for beginning in list(_beginnings(row))[:-3]:",
        f"{CLEANING_TEST}::test_no_row_is_in_another_split_than_one_that_begins_with_all_of_it",
    ),
    bug(
        "split: what is not to be learned is a reference",
        "ingest:split",
        "if all(map(is_reference, group)):",
        "if group:",
        f"{CLEANING_TEST}::test_an_answer_that_is_not_to_be_learned_is_no_reference",
    ),
    bug(
        "split: small classes give what large ones give",
        "ingest:SMALL_CLASS",
        "SMALL_CLASS = 8",
        "SMALL_CLASS = 3",
        f"{CLEANING_TEST}::test_a_class_of_a_few_rows_gives_one_of_them",
    ),
    bug(
        "upload: a stored file is answered as an error",
        "ingest:Uploads.accept",
        "except (Transient, PyMongoError) as error:",
        "except ZeroDivisionError as error:",
        f"{INGEST_WORKER}::test_nothing_fails_an_upload_once_its_file_is_stored",
    ),
    bug(
        "upload: parts of a dataset are written over each other",
        "ingest:Publish._dataset",
        "prefix = f'tenants/{file.tenant_id}/datasets/{dataset_id}/{version}'",
        "prefix = f'tenants/{file.tenant_id}/datasets/{dataset_id}'",
        f"{INGEST_WORKER}::test_a_dataset_that_was_half_made_otherwise_keeps_the_bytes_it_names",
    ),
    bug(
        "upload: content is asked for after its answer began",
        "ingest:Files.content",
        "first = await anext(chunks, b'')",
        "first = b''",
        f"{INGEST_WORKER}::test_the_content_of_a_file_is_there_before_its_answer_begins",
    ),
    bug(
        "upload: no slot is kept for who has none",
        "ingest:file_routes",
        "for_newcomers=settings.ingest_uploads_at_a_time // 2",
        "for_newcomers=0",
        "services/ingest/tests/test_service.py::test_half_of_the_slots_are_for_tenants_that_have_none",
    ),
    bug(
        "deletion: rows outlive their file",
        "ingest:Uploads.purge",
        "await self.release(file.tenant_id, file.id)",
        "pass",
        f"{INGEST_DELETION}::test_a_deleted_file_leaves_nothing_that_was_made_from_it",
    ),
    bug(
        "deletion: the rows of a living model go",
        "ingest:Uploads.release",
        "if not outliving or await self._files.uses_of(tenant_id, file_id):",
        "if not outliving:",
        f"{INGEST_DELETION}::test_the_rows_of_a_living_model_stay_until_its_end_and_are_named",
    ),
    bug(
        "deletion: rows kept for a model outlive it",
        "ingest:Retention.ended",
        "await self._uses.note(event.tenant_id, event.job_id, over=True)",
        "pass",
        f"{INGEST_DELETION}::test_the_rows_of_a_living_model_stay_until_its_end_and_are_named",
    ),
    bug(
        "deletion: what a job validates with goes before it is trained",
        "ingest:Uses.of",
        "as_what: tuple[Query, ...] = ({'training_file': file_id}, validates)",
        "as_what: tuple[Query, ...] = ({'training_file': file_id},)",
        f"{INGEST_DELETION}::test_a_job_keeps_what_it_validates_with_until_it_is_trained",
    ),
    bug(
        "deletion: an arm that is refused lets go of the rows its job is trained on",
        "ingest:Uses.settle",
        "nothing_comes: Query = {'$or': [{'adapter': 'gone'}, {'succeeded': True, 'trained': {'$ne': True}}]}",
        "nothing_comes: Query = {}",
        f"{INGEST_DELETION}::test_rows_stay_while_a_version_of_the_model_is_there_or_to_come_and_no_longer",
    ),
    bug(
        "deletion: rows are held for ever where the training was given up and the arm deleted",
        "ingest:Retention.succeeded",
        "await self._uses.note(event.tenant_id, event.job_id, succeeded=True)",
        "pass",
        f"{INGEST_DELETION}::test_rows_stay_while_a_version_of_the_model_is_there_or_to_come_and_no_longer",
    ),
    bug(
        "deletion: rows of a dataset count as nobody's",
        "ingest:Files.stored_bytes",
        "return files + datasets + await self._elsewhere.bytes_of(tenant_id)",
        "return files + await self._elsewhere.bytes_of(tenant_id)",
        f"{INGEST_DELETION}::test_derived_bytes_count_until_they_are_gone",
    ),
    bug(
        "deletion: the answers' file outlives its project",
        "ingest:Uploads.take_back_labels",
        "for file in await self._files.published_by(event.tenant_id, event.project_id):",
        "for file in list[File]():",
        f"{INGEST_DELETION}::test_published_labels_go_with_their_project_and_are_named_with_the_file_they_answer",
    ),
    bug(
        "deletion: the word that a file's bytes are gone passes a late writer",
        "ingest:Files.note_purged",
        "await self._files.save(file, fence=file.lease.fence)",
        "await self._files.update(file.tenant_id, file.id, File.purge)",
        f"{INGEST_DELETION}::test_bytes_written_between_the_removal_and_the_word_of_it_are_removed_too",
    ),
    bug(
        "deletion: an adapter that two jobs made counts no more when one has lost it",
        "ingest:StoredElsewhere._note",
        "'$cond': [{'$setIsSubset': ['$makers', '$lost']}, 0, size]",
        "'$cond': [{'$setIsSubset': ['$lost', '$makers']}, 0, size]",
        f"{INGEST_DELETION}::test_an_adapter_of_two_jobs_counts_once_and_until_both_have_lost_it",
    ),
    bug(
        "a page of tasks passes over one of those that share a position",
        "labeling:IN_ORDER",
        "IN_ORDER = [('position', 1), ('_id', 1)]",
        "IN_ORDER = [('position', 1)]",
        f"{LABELING_TEST}::test_tasks_that_were_skipped_at_once_are_all_on_some_page",
    ),
    bug(
        "deletion: a rating that is told of again comes back",
        "labeling:Labels.forget_feedback",
        "await self._feedback.replace_one({'_id': event.feedback_id, 'tenant_id': event.tenant_id}, gone, upsert=True)",
        "await self._feedback.delete_one({'_id': event.feedback_id, 'tenant_id': gone['tenant_id']})",
        f"{LABELING_TEST}::test_feedback_that_is_taken_back_is_in_the_inbox_no_more",
    ),
    bug(
        "labels: answers stay although they fit no label",
        "labeling:Labels.reopen_unfit",
        "{**mine, 'answer': {'$nin': project.labels}}",
        "{**mine, 'answer': {'$in': []}}",
        f"{LABELING_TEST}::test_answers_that_are_none_of_the_new_labels_are_asked_for_again",
    ),
    bug(
        "labels: an answer that fits no label is published",
        "labeling:Projects.publish",
        "await self._labels.reopen_unfit(project)",
        "pass",
        f"{LABELING_TEST}::test_an_answer_that_came_in_while_the_labels_changed_is_not_published",
    ),
    bug(
        "deletion: tasks outlive their project",
        "labeling:Projects.purge",
        "await self._labels.remove_tasks(project)",
        "pass",
        f"{LABELING_DELETION}::test_a_deleted_project_leaves_no_task_no_answer_and_no_published_label",
    ),
    bug(
        "deletion: rows that come late bring their project back",
        "labeling:Projects.forget_file",
        "await self._labels.note_deleted(event.tenant_id, event.file_id)",
        "pass",
        f"{LABELING_DELETION}::test_rows_that_come_after_their_file_was_deleted_make_no_project",
    ),
    bug(
        "deletion: tasks written meanwhile stay",
        "labeling:Projects._remove",
        "it.purge_again()",
        "pass",
        f"{LABELING_DELETION}::test_a_delete_while_the_tasks_are_written_leaves_none",
    ),
    bug(
        "deletion: the word that tasks are removed passes one who adds some",
        "labeling:Projects.purge",
        "await self._labels.save_claimed(project)",
        "await self._labels.change(project.tenant_id, project.id, Project.purge)",
        f"{LABELING_DELETION}::test_tasks_written_between_the_removal_and_the_word_of_it_are_removed_too",
    ),
    bug(
        "deletion: rows that come again leave what a killed attempt wrote",
        "labeling:Projects._let_go_if_deleted",
        "if deleted and current is not None:",
        "if current is not None and current.state == 'open' and deleted:",
        f"{LABELING_DELETION}::test_rows_that_come_again_take_along_what_a_killed_attempt_wrote",
    ),
    bug(
        "deletion: answers written late of a deleted project stay",
        "labeling:Projects.publish",
        "await self._remove(project)",
        "pass",
        f"{LABELING_DELETION}::test_answers_written_while_their_project_is_deleted_do_not_stay",
    ),
)
