"""People in the admin panel. The forms take passwords; no page and no export shows what is kept of them."""

from typing import Any, ClassVar

from markupsafe import Markup
from starlette.requests import Request
from wtforms import BooleanField, Form, PasswordField, StringField  # type: ignore[import-untyped]
from wtforms.validators import InputRequired, ValidationError  # type: ignore[import-untyped]

from app.admin_view import AdminView, speak_plainly
from app.auth import service
from app.auth.models import User
from app.auth.passwords import find_password_fault
from app.templating import url_for_request

BOX = {"class": "form-control"}
SECRET = {"class": "form-control", "autocomplete": "new-password"}
TICK = {"class": "form-check-input"}


def check_email(form: Form, field: StringField) -> None:
    try:
        service.read_email(field.data or "")
    except service.AccountError as error:
        raise ValidationError(str(error)) from None


def check_name(form: Form, field: StringField) -> None:
    try:
        service.read_name(field.data or "")
    except service.AccountError as error:
        raise ValidationError(str(error)) from None


def check_password(form: Form, field: PasswordField) -> None:
    if field.data and (fault := find_password_fault(field.data, form.email.data or "")):
        raise ValidationError(fault)


class PersonForm(Form):  # type: ignore[misc]
    """All fields, in the order of the page; either form leaves some out."""

    email = StringField("E-mail", [InputRequired(), check_email], render_kw=BOX)
    name = StringField("Name", [check_name], render_kw=BOX)
    password = PasswordField("Password", [InputRequired(), check_password], render_kw=SECRET)
    new_password = PasswordField(
        "New password",
        [check_password],
        description="Leave it empty to keep the one there is. A new one signs the person out everywhere.",
        render_kw=SECRET,
    )
    is_active = BooleanField("Active", description="Who is not active is signed out and stays out.", render_kw=TICK)
    is_staff = BooleanField("Staff", description="May look at everything in this panel.", render_kw=TICK)
    is_superuser = BooleanField("Superuser", description="May change everything in this panel.", render_kw=TICK)


class NewPersonForm(PersonForm):
    new_password = None
    is_active = None


class ChangePersonForm(PersonForm):
    password = None


def draw_picture(user: User, name: str, request: Request) -> Markup:
    if not user.picture_id:
        return Markup()
    address = url_for_request(request, "show_picture", picture_id=user.picture_id)
    return Markup('<img class="avatar" src="{}" alt="">').format(address)


class PersonView(AdminView, model=User):
    name = "person"
    name_plural = "People"
    icon = "fa-solid fa-user"

    column_export_list: ClassVar = ["id", "email", "name", "is_active", "is_staff", "is_superuser", "created_at"]
    column_list: ClassVar = ["email", "name", "picture_id", *column_export_list[3:]]
    column_details_list: ClassVar = ["id", *column_list]
    column_formatters: ClassVar = {"picture_id": draw_picture}
    column_formatters_detail: ClassVar = column_formatters
    column_searchable_list: ClassVar = ["email", "name"]
    column_sortable_list: ClassVar = column_export_list[1:]
    column_default_sort: ClassVar = ("created_at", True)
    column_labels: ClassVar = {
        "id": "Id",
        "picture_id": "Picture",
        "email": "E-mail",
        "name": "Name",
        "is_active": "Active",
        "is_staff": "Staff",
        "is_superuser": "Superuser",
        "created_at": "Created",
    }
    form_create_rules: ClassVar = ["password"]  # how scaffold_form knows which form is wanted

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        return NewPersonForm if rules == self.form_create_rules else ChangePersonForm

    async def check_can_delete(self, request: Request, model: Any) -> bool:
        return model != request.state.person and await super().check_can_delete(request, model)

    async def insert_model(self, request: Request, data: dict[str, Any]) -> User:
        with speak_plainly(service.AccountError):
            async with request.app.state.database.session() as session:
                return await service.create_user(session, **data)

    async def update_model(self, request: Request, pk: str, data: dict[str, Any]) -> User:
        user: User = await self.get_thing(pk)
        with speak_plainly(service.AccountError):
            async with request.app.state.database.session() as session:
                await service.update_user(session, request.state.person, user, **data)
        return user

    async def delete_model(self, request: Request, pk: str) -> None:
        user: User = await self.get_thing(pk)
        with speak_plainly(service.AccountError):
            async with request.app.state.database.session() as session:
                await service.delete_user(session, request.app.state.storage, request.state.person, user)
